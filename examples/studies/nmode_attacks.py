"""Do a trained NMODE and its certificates hold? ``python examples/studies/nmode_attacks.py RUN``.

RUN is the folder of a run, such as ``runs/nmode_mnist/version_0``. Attacks the best checkpoint on the first
test images within L∞ distance δ and prints one table: accuracies under attack, and shares of images whose
class is proved to stay within δ. Then it looks for an attacked image that lies inside a certificate and yet
has another class; if there is one, it is printed, and the exit code is 1. Writes nothing.

With ``--at-radius`` every image is attacked at the largest radius that intervals certify for it, where a
certificate that is too large would break first.

APGD, Square and AutoAttack take hours for 10 000 images on two cores; ``--attacks pgd,fgsm`` takes minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import finished_runs as runs
import torch
import torchattacks
from finished_runs import BATCH, Attack, MarginPGD, RadiusAttack
from torch import Tensor, nn

from lightning_attractors.certificates import (
    finite_time_gain,
    interval_radii,
    interval_verified,
    lipschitz_radii,
    published_gain,
)
from lightning_attractors.errors import SettingError
from lightning_attractors.models import NMODE
from lightning_attractors.norms import distances
from lightning_attractors.robustness import PGD, Logits, Strength, clearly_more

# 2.5 δ / 40: forty steps can cross the ball, as Madry et al. chose it.
STEPS, SHARE = 40, 2.5 / 40
# x + δ in float32 can be that much farther from x than δ; without it the check would overlook most attacks.
ROUNDING = 2.0**-22
ATTACKS = ("pgd", "fgsm", "apgd", "square", "autoattack")
WITH_GRADIENTS = ("pgd", "fgsm", "apgd")


def attacks(model: nn.Module, delta: float, classes: int) -> dict[str, tuple[str, Attack]]:
    """Every attack by its name: what the table calls it, and the attack."""
    step = SHARE * delta
    pgd = torchattacks.PGD(model, eps=delta, alpha=step, steps=STEPS, random_start=True)
    return {
        "pgd": (f"PGD, {STEPS} steps of {step:.4g}", pgd),
        "fgsm": ("FGSM", torchattacks.FGSM(model, eps=delta)),
        "apgd": ("APGD, cross-entropy, 40 steps", torchattacks.APGD(model, eps=delta, steps=STEPS)),
        "square": ("Square, 5000 queries", torchattacks.Square(model, eps=delta, n_queries=5000)),
        "autoattack": (
            "AutoAttack, standard",
            torchattacks.AutoAttack(model, eps=delta, n_classes=classes, seed=0),
        ),
    }


def certified_radii(model: NMODE, images: Tensor, labels: Tensor, delta: float) -> dict[str, Tensor]:
    """Proved L∞ radii (n,) by kind of certificate; a kind that this model does not admit is left out.

    The interval certificate is asked for δ (and rounding) only: its radius is that or 0.
    """
    found: dict[str, Tensor] = {}
    layer, head = model.layer, model.head
    if not isinstance(layer, nn.Identity) and isinstance(model.backbone, nn.Flatten):
        gains = {"exact gain": layer.flow.gain}
        gains["finite-time gain"] = finite_time_gain(layer.flow.decay, layer.flow.time)
        if layer.flow.decay > 1:
            gains["published gain"] = published_gain(layer.flow.decay)
        for name, gain in gains.items():
            found[f"margin / Lipschitz, {name}"] = lipschitz_radii(
                layer, head, images.flatten(1), labels, gain=gain
            )
    try:
        reach = delta + ROUNDING
        verified = interval_verified(model.features, head, images, labels, reach, (0.0, 1.0), BATCH)
        found["intervals"] = reach * verified.double()
    except SettingError as error:
        print(f"no interval certificate: {error}")
    return found


class Vertices(PGD):
    """Random vertices of each image's box in place of steps; PGD keeps that of the smallest margin."""

    def path(self, logits_fn: Logits, images: Tensor, labels: Tensor, strength: Strength) -> Iterator[Tensor]:
        for _ in range(self.steps):
            signs = torch.randint(0, 2, images.shape).float() * 2 - 1
            yield self.project(images + signs, images, strength)


def at_radius(model: NMODE, images: Tensor, labels: Tensor, queries: int) -> list[str]:
    """Attack every image at the radius that intervals certify for it: counterexamples, one line each.

    Vertices and ascents use the radius of each image, the attacks of torchattacks the smallest of the batch.
    """
    radii = interval_radii(model.features, model.head, images, labels, 0.5, 1e-5, (0.0, 1.0), BATCH)
    print(f"{(radii > 0).sum()} of {len(images)} images have a certified radius, median {radii.median():.4f}")

    def inner(reach: Tensor) -> Tensor:
        """Radii in float32 that rounding does not carry anybody across."""
        return (reach - ROUNDING).clamp(min=0).float()

    def apgd(x: Tensor, y: Tensor, reach: Tensor) -> Tensor:
        return torchattacks.APGD(model, eps=float(reach[0]), steps=STEPS, n_restarts=2)(x, y)

    def square(x: Tensor, y: Tensor, reach: Tensor) -> Tensor:
        return torchattacks.Square(model, eps=float(reach[0]), n_queries=queries)(x, y)

    kinds: dict[str, RadiusAttack] = {
        "PGD": lambda x, y, reach: MarginPGD(steps=STEPS, restarts=5)(model, x, y, inner(reach)),
        "vertices": lambda x, y, reach: Vertices(steps=20)(model, x, y, inner(reach)),
        "APGD": apgd,
        "Square": square,
    }
    jobs = [(kind, attack, part) for part in runs.batches_by_radius(radii) for kind, attack in kinds.items()]
    return runs.attack_at_radii(model, images, labels, radii, "linf", jobs)


def masking(withstood: dict[str, Tensor]) -> str:
    """A plain sentence: where an attack without gradients finds more than those with them, they are masked.

    Images that only one side breaks are compared as in McNemar's test, at two standard deviations.
    """
    with_gradients = [withstood[name] for name in WITH_GRADIENTS if name in withstood]
    if not with_gradients or "square" not in withstood:
        return "Whether gradients are masked was not asked: that takes Square and an attack with gradients."
    survivors, square = torch.stack(with_gradients).all(dim=0), withstood["square"]
    only_square, only_gradients = int((survivors & ~square).sum()), int((~survivors & square).sum())
    masked = clearly_more(only_square, only_gradients)
    verdict = "Gradients ARE masked" if masked else "No sign of masked gradients"
    return (
        f"{verdict}: beside attacks with gradients, Square breaks {only_square} images that they all spare, "
        f"and spares {only_gradients} that they break."
    )


def table(model: NMODE, images: Tensor, labels: Tensor, names: list[str], delta: float) -> list[str]:
    """Print accuracies under attack and proved ones, and give the counterexamples, one line each."""
    clean = runs.classes_of(model, images) == labels
    radii = certified_radii(model, images, labels, delta)
    known, broken = attacks(model, delta, model.head.out_features), []
    withstood: dict[str, Tensor] = {}
    print("| | accuracy in % | largest distance |\n|---|---|---|")
    print(f"| clean | {100 * clean.double().mean():.2f} | 0 |", flush=True)
    for name in names:
        title, attack = known[name]
        changed = runs.attacked(model, attack, images, labels)
        lead, moved = runs.lead(model, changed, labels), distances(changed, images, "linf")
        withstood[name] = lead <= 0
        share = withstood[name].double().mean()
        print(f"| {title} | {100 * share:.2f} | {moved.max():.7f} |", flush=True)
        for kind, proved in radii.items():
            found = runs.breaches(lead, moved, proved)
            broken += [f"{title}: image {i} {text} ({kind})" for i, text in found]
    for kind, proved in radii.items():
        share = (clean & (proved >= delta)).double().mean()
        print(f"| certified: {kind} | {100 * share:.2f} | |")
    print(f"\n{masking(withstood)}")
    return broken


def main() -> None:
    """Attack, certify, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--delta", type=float, default=0.05, help="L∞ distance δ (default: 0.05)")
    parser.add_argument("--max-images", type=int, default=1000, help="test images (default: 1000)")
    parser.add_argument("--attacks", default=",".join(ATTACKS), help="which, with commas (default: all)")
    parser.add_argument("--at-radius", action="store_true", help="attack at the certified radii instead")
    parser.add_argument("--queries", type=int, default=1000, help="of Square at the radii (default: 1000)")
    arguments = parser.parse_args()
    names = arguments.attacks.split(",")
    if unknown := set(names) - set(ATTACKS):
        parser.error(f"--attacks: {', '.join(sorted(unknown))} is none of {', '.join(ATTACKS)}")
    torch.manual_seed(0)
    model = runs.trained(arguments.run, NMODE)
    images, labels = runs.test_images(arguments.run, arguments.max_images)
    if arguments.at_radius:
        runs.conclude(at_radius(model, images, labels, arguments.queries))
        return
    print(f"\n{arguments.run}: {len(images)} test images, L∞ distance δ = {arguments.delta:g}\n")
    runs.conclude(table(model, images, labels, names, arguments.delta))


if __name__ == "__main__":
    main()
