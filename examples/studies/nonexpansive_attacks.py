"""Does a non-expansive network withstand attacks? ``python examples/studies/nonexpansive_attacks.py RUN``.

RUN is the folder of a run of NonexpansiveNet, such as ``runs/nonexpansive_cifar10/version_0``; there may be
several, such as its unconstrained twin's. The best checkpoints are attacked on the first test images: PGD in
L∞ and in L2, along the margin and of many steps, and with ``--autoattack N`` AutoAttack on the first N of
them. Prints one table, certified accuracies included. Writes nothing.

With ``--at-radius`` every image is attacked in L2 at its own certified radius instead, where a certificate
that is too large would break first: if an image falls, it is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import finished_runs as runs
import torch
import torchattacks
from finished_runs import BATCH, MarginPGD, RadiusAttack
from torch import Tensor

from lightning_attractors.models import NonexpansiveNet
from lightning_attractors.norms import NORMS, NormName

STRENGTHS: list[tuple[NormName, float, str]] = [
    ("linf", 2 / 255, "2/255"),
    ("linf", 4 / 255, "4/255"),
    ("linf", 8 / 255, "8/255"),
    ("l2", 36 / 255, "36/255"),
]
STEPS, RESTARTS = 40, 2
# Attacked images lie that much nearer than the radius, so that float32 does not carry them across.
ROUNDING = 1e-6


def table(run: Path, images: Tensor, labels: Tensor, for_autoattack: int) -> None:
    """Print accuracies of a run's model in %, clean, attacked and certified."""
    model = runs.trained(run, NonexpansiveNet)
    clean = runs.classes_of(model, images) == labels
    radii = model.certified_radii(images, labels)
    kind = "non-expansive" if model.layers.constrained else "unconstrained"
    print(f"\n{run}: {kind}, Lipschitz constant at most {model.gain_bounds()['lipschitz']:.4g}")
    print(f"{len(images)} test images\n\n| | distance | accuracy in % | certified in % |\n|---|---|---|---|")
    print(f"| clean | 0 | {100 * clean.double().mean():.2f} | |", flush=True)
    for norm, strength, shown in STRENGTHS:
        pgd = partial(MarginPGD(norm, STEPS, restarts=RESTARTS), model, strength=strength * (1 - ROUNDING))
        changed = runs.attacked(model, pgd, images, labels)
        proved = f"{100 * (radii >= strength).double().mean():.2f}" if norm == "l2" else ""
        line = f"| PGD, {RESTARTS} × {STEPS} steps | {NORMS[norm]} {shown}"
        print(f"{line} | {_accuracy(model, changed, labels)} | {proved} |", flush=True)
        if for_autoattack:
            x, y = images[:for_autoattack], labels[:for_autoattack]
            changed = runs.attacked(model, partial(autoattack, model, norm, strength), x, y)
            name = f"AutoAttack, the first {len(x)}"
            print(f"| {name} | {NORMS[norm]} {shown} | {_accuracy(model, changed, y)} | |", flush=True)


def autoattack(model: NonexpansiveNet, norm: NormName, strength: float, x: Tensor, y: Tensor) -> Tensor:
    """What the standard AutoAttack makes of images, in the norm."""
    name, classes = {"linf": "Linf", "l2": "L2"}[norm], model(x[:1]).shape[1]
    return torchattacks.AutoAttack(model, name, strength, n_classes=classes, seed=0)(x, y)


def _accuracy(model: NonexpansiveNet, images: Tensor, labels: Tensor) -> str:
    return f"{100 * (runs.classes_of(model, images) == labels).double().mean():.2f}"


def at_radius(run: Path, images: Tensor, labels: Tensor, for_autoattack: int) -> list[str]:
    """Attack every image at its own certified radius, and say how near the attacks came.

    PGD uses the radius of each image, AutoAttack the smallest of the batch.

    Returns:
        Counterexamples, one line each.
    """
    model = runs.trained(run, NonexpansiveNet)
    radii = model.certified_radii(images, labels)
    parts = runs.batches_by_radius(radii)
    print(f"{run}: {(radii > 0).sum()} of {len(images)} images are certified, median {radii.median():.4f}")

    def pgd(x: Tensor, y: Tensor, reach: Tensor) -> Tensor:
        return MarginPGD("l2", STEPS, restarts=5)(model, x, y, (reach * (1 - ROUNDING)).float())

    def standard(x: Tensor, y: Tensor, reach: Tensor) -> Tensor:
        return autoattack(model, "l2", float(reach[0]) * (1 - ROUNDING), x, y)

    jobs: list[tuple[str, RadiusAttack, Tensor]] = [("PGD", pgd, part) for part in parts]
    if parts and for_autoattack:
        certified = torch.cat(parts)
        spread = torch.linspace(0, len(certified) - 1, min(for_autoattack, len(certified))).long().unique()
        jobs += [("AutoAttack", standard, part) for part in certified[spread].split(BATCH // 5)]
    return runs.attack_at_radii(model, images, labels, radii, "l2", jobs)


def main() -> None:
    """Attack, certify, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--max-images", type=int, default=1000, help="test images (default: 1000)")
    parser.add_argument("--autoattack", type=int, default=0, help="images for AutoAttack (default: 0)")
    parser.add_argument("--at-radius", action="store_true", help="attack at the certified radii instead")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    images, labels = runs.test_images(arguments.runs[0], arguments.max_images)
    broken: list[str] = []
    for run in arguments.runs:
        if arguments.at_radius:
            broken += at_radius(run, images, labels, arguments.autoattack)
        else:
            table(run, images, labels, arguments.autoattack)
    if arguments.at_radius:
        runs.conclude(broken)


if __name__ == "__main__":
    main()
