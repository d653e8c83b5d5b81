"""Does training with noise buy robustness? ``python examples/studies/cvfr_attacks.py letters`` (``mnist``).

Trains CVFR from its stochastic config for every σ (0 too) and seed, attacks the best checkpoint of each with
random corruptions A (a fraction p of the pixels replaced by U(0, 1)) and B (U(−p, p) added to every pixel),
and writes one table per attack: accuracy against p, mean and standard deviation over the seeds. Models that
are there already are not trained again. Everything is in ``runs/cvfr_attacks_<data>_<damping>``.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import finished_runs
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_attractors.data import LettersDataModule, MNISTDataModule
from lightning_attractors.dynamics import DampingName
from lightning_attractors.figures import PAGE, in_style, write_figure
from lightning_attractors.models import CVFR
from lightning_attractors.robustness import CORRUPTIONS, corruption_curve
from lightning_attractors.training import faster_precision
from lightning_attractors.writing import csv_table, write_atomically

ATTACKS = {"A": "replace_pixels", "B": "add_uniform"}
STRENGTHS = [k / 10 for k in range(10)]
SIGMAS = {"letters": [0.0, 0.05, 0.1, 0.2], "mnist": [0.0, 0.1, 0.5, 1.0]}
SEEDS = {"letters": 5, "mnist": 2}
Batches = list[tuple[Tensor, Tensor]]


def trained(data: str, sigma: float, seed: int, root: Path, damping: str) -> CVFR:
    """The model of one σ and seed, from its checkpoint or trained now."""
    folder, unfinished = root / f"sigma_{sigma}_seed_{seed}", root / "unfinished"
    if not folder.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        settings = {
            "config": f"configs/cvfr_{data}_stochastic.yaml",
            "seed_everything": seed,
            "model.sigma": sigma,
            "model.damping": damping,
            "model.seed": seed,
            "data.seed": seed,
            "trainer.logger.save_dir": root,
            "trainer.logger.name": unfinished.name,
            "trainer.logger.version": 0,
            "trainer.callbacks": "null",
        }
        options = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
        subprocess.run([sys.executable, "-m", "lightning_attractors", "fit", *options], check=True)
        unfinished.rename(folder)
    return finished_runs.trained(folder / "version_0", CVFR)


def test_batches(data: str, max_images: int) -> Batches:
    """The first ``max_images`` test images, without noise, in batches of 250 at most."""
    if data == "letters":
        module = LettersDataModule(letters="ABC", n_test=max_images, noise_test=0.0)
    else:
        module = MNISTDataModule(root="data")
    module.setup()
    images, labels = module.datasets["test"].__getitems__(range(max_images))
    return list(zip(images.split(250), labels.split(250), strict=True))


def attacked(model: CVFR, batches: Batches, attack: str) -> Tensor:
    """Accuracy at every strength, shape (S,), every batch meeting a realisation of the noise of its own."""
    realisations = itertools.count()
    mixed = faster_precision(model, "cpu") == "bf16-mixed"

    def predict(images: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            return model.logits_of(model.final_state(images, next(realisations)))

    return corruption_curve(predict, batches, CORRUPTIONS[ATTACKS[attack]], STRENGTHS, repeats=1).mean


def report(results: dict[float, Tensor], attack: str, root: Path) -> None:
    """Print one attack's table; write it as CSV. ``results`` has accuracies (seeds, S) for every σ."""
    print(f"\nattack {attack}: accuracy in %, mean ± sd over {len(next(iter(results.values())))} seeds")
    print("| p | " + " | ".join(f"σ = {sigma}" for sigma in results) + " |")
    print("|---" * (1 + len(results)) + "|")
    rows = []
    for i, strength in enumerate(STRENGTHS):
        cells = [(100 * a[:, i].mean(), 100 * a[:, i].std()) for a in results.values()]
        print(f"| {strength} | " + " | ".join(f"{mean:.1f} ± {sd:.1f}" for mean, sd in cells) + " |")
        rows += [
            [attack, sigma, seed, strength, float(a[seed, i])]
            for sigma, a in results.items()
            for seed in range(len(a))
        ]
    header = ("attack", "sigma", "seed", "p", "accuracy")
    write_atomically(root / f"attack_{attack}.csv", csv_table(header, rows))


@in_style
def draw(results: dict[str, dict[float, Tensor]], path: Path) -> None:
    """Accuracy against p, one panel per attack, with one standard deviation as a band."""
    figure = Figure(figsize=(PAGE, 2.9))
    for axis, (attack, curves) in zip(figure.subplots(1, 2, sharey=True), results.items(), strict=True):
        for k, (sigma, accuracies) in enumerate(curves.items()):
            mean, sd = accuracies.mean(dim=0), accuracies.std(dim=0)
            axis.plot(STRENGTHS, mean, color=f"C{k}", marker="o", markersize=3, label=f"σ = {sigma}")
            axis.fill_between(STRENGTHS, mean - sd, mean + sd, color=f"C{k}", alpha=0.2)
        axis.set(title=f"attack {attack}", xlabel="p", ylabel="accuracy")
        axis.legend()
    write_figure(path, figure)


def main() -> None:
    """Train, attack and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=sorted(SIGMAS))
    parser.add_argument("--seeds", type=int, help="number of seeds, at least 2 (default: 5 letters, 2 MNIST)")
    parser.add_argument("--images", type=int, default=3000, help="test images to attack (default: 3000)")
    parser.add_argument("--damping", choices=get_args(DampingName), default="saturating")
    parser.add_argument("--without-noise", action="store_true", help="attack them with the noise off")
    arguments = parser.parse_args()
    data, seeds, damping = arguments.data, arguments.seeds or SEEDS[arguments.data], arguments.damping
    root = Path("runs") / f"cvfr_attacks_{data}_{damping}"
    batches = test_batches(data, arguments.images)
    results: dict[str, dict[float, Tensor]] = {attack: {} for attack in ATTACKS}
    for sigma in SIGMAS[data]:
        models = [trained(data, sigma, seed, root, damping) for seed in range(seeds)]
        for model in models:
            model.eval_noise = not arguments.without_noise
        for attack, curves in results.items():
            curves[sigma] = torch.stack([attacked(model, batches, attack) for model in models])
    for attack, curves in results.items():
        report(curves, attack, root)
    draw(results, root / "attacks")


if __name__ == "__main__":
    main()
