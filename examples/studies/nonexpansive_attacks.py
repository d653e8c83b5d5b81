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
import math
from pathlib import Path

import torch
import torchattacks
from finished_runs import (
    BATCH,
    MarginPGD,
    attacked,
    best_checkpoint,
    classes_of,
    conclude,
    margin,
    test_images,
)
from torch import Tensor

from lightning_attractors.models import NonexpansiveNet
from lightning_attractors.norms import NORMS, NormName, distances

STRENGTHS: list[tuple[NormName, float, str]] = [
    ("linf", 2 / 255, "2/255"),
    ("linf", 4 / 255, "4/255"),
    ("linf", 8 / 255, "8/255"),
    ("l2", 36 / 255, "36/255"),
]
STEPS, RESTARTS = 40, 2
# Attacked images lie that much nearer than the radius, so that float32 does not carry them across.
ROUNDING = 1e-6


def trained(run: Path) -> NonexpansiveNet:
    """The best model of a run, ready to be attacked."""
    model = NonexpansiveNet.load_from_checkpoint(best_checkpoint(run), map_location="cpu")
    return model.eval().requires_grad_(False)


def table(run: Path, images: Tensor, labels: Tensor, for_autoattack: int) -> None:
    """Print accuracies of a run's model in %, clean, attacked and certified."""
    model = trained(run)
    clean = classes_of(model, images) == labels
    radii = model.certified_radii(images, labels)
    kind = "non-expansive" if model.constrained else "unconstrained"
    print(f"\n{run}: {kind}, Lipschitz constant at most {model.gain_bounds()['lipschitz']:.4g}")
    print(f"{len(images)} test images\n\n| | distance | accuracy in % | certified in % |\n|---|---|---|---|")
    print(f"| clean | 0 | {100 * clean.double().mean():.2f} | |", flush=True)
    for norm, strength, shown in STRENGTHS:

        def attack(x: Tensor, y: Tensor, norm: NormName = norm, strength: float = strength) -> Tensor:
            return MarginPGD(norm, STEPS, restarts=RESTARTS)(model, x, y, strength * (1 - ROUNDING))

        changed = attacked(model, attack, images, labels)
        proved = f"{100 * (radii >= strength).double().mean():.2f}" if norm == "l2" else ""
        line = f"| PGD, {RESTARTS} × {STEPS} steps | {NORMS[norm]} {shown}"
        print(f"{line} | {_accuracy(model, changed, labels)} | {proved} |", flush=True)
        if for_autoattack:
            x, y = images[:for_autoattack], labels[:for_autoattack]
            standard = torchattacks.AutoAttack(model, _library_name(norm), strength, n_classes=10, seed=0)
            changed = attacked(model, standard, x, y)
            name = f"AutoAttack, the first {len(x)}"
            print(f"| {name} | {NORMS[norm]} {shown} | {_accuracy(model, changed, y)} | |", flush=True)


def _library_name(norm: NormName) -> str:
    return "Linf" if norm == "linf" else "L2"


def _accuracy(model: NonexpansiveNet, images: Tensor, labels: Tensor) -> str:
    return f"{100 * (classes_of(model, images) == labels).double().mean():.2f}"


def at_radius(run: Path, images: Tensor, labels: Tensor, for_autoattack: int) -> list[str]:
    """Attack every image at its own certified radius, and say how near the attacks came.

    Images of about the same radius are attacked together: AutoAttack takes one radius for all, the smallest
    of the batch, while PGD uses that of each image.

    Returns:
        Counterexamples, one line each.
    """
    model = trained(run)
    radii = model.certified_radii(images, labels)
    certified = torch.nonzero(radii > 0)[:, 0]
    print(f"{run}: {len(certified)} of {len(images)} images are certified, median {radii.median():.4f}")
    certified = certified[radii[certified].argsort()]
    lines, closest = [], {"PGD": math.inf, "AutoAttack": math.inf}
    spread = torch.linspace(0, len(certified) - 1, min(for_autoattack, len(certified))).long().unique()
    jobs = [("PGD", part) for part in certified.split(BATCH)]
    jobs += [("AutoAttack", part) for part in certified[spread].split(BATCH // 5) if len(part)]
    for kind, part in jobs:
        x, y, reach = images[part], labels[part], radii[part]
        if kind == "PGD":
            changed = MarginPGD("l2", STEPS, restarts=5)(model, x, y, (reach * (1 - ROUNDING)).float())
        else:
            smallest = float(reach[0]) * (1 - ROUNDING)
            changed = torchattacks.AutoAttack(model, "L2", smallest, n_classes=10, seed=0)(x, y).detach()
        left = margin(model, changed, y).detach()
        closest[kind] = min(closest[kind], float(left.min()))
        moved = distances(changed, x, "l2")
        for i in torch.nonzero((left <= 0) & (moved <= reach))[:, 0].tolist():
            lines.append(f"{kind}: image {int(part[i])} falls at {moved[i]:.9g}, radius {reach[i]:.9g}")
    shown = ", ".join(f"{kind} {value:.3g}" for kind, value in closest.items() if math.isfinite(value))
    print(f"The smallest margins that attacks at the radius leave: {shown}", flush=True)
    return lines


def main() -> None:
    """Attack, certify, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--max-images", type=int, default=1000, help="test images (default: 1000)")
    parser.add_argument("--autoattack", type=int, default=0, help="images for AutoAttack (default: 0)")
    parser.add_argument("--at-radius", action="store_true", help="attack at the certified radii instead")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    images, labels = test_images(arguments.runs[0], arguments.max_images)
    broken: list[str] = []
    for run in arguments.runs:
        if arguments.at_radius:
            broken += at_radius(run, images, labels, arguments.autoattack)
        else:
            table(run, images, labels, arguments.autoattack)
    if arguments.at_radius:
        conclude(broken)


if __name__ == "__main__":
    main()
