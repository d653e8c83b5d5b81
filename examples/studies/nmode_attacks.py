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
import math
from pathlib import Path

import torch
import torchattacks
from finished_runs import (
    BATCH,
    Attack,
    MarginPGD,
    attacked,
    best_checkpoint,
    classes_of,
    conclude,
    margin,
    nearer,
    test_images,
)
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
from lightning_attractors.robustness.masking import clearly_more

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


def trained(run: Path) -> NMODE:
    """The best model of a run, ready to be attacked."""
    model = NMODE.load_from_checkpoint(best_checkpoint(run), map_location="cpu")
    return model.eval().requires_grad_(False)


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


def counterexamples(
    model: NMODE, images: Tensor, labels: Tensor, changed: Tensor, radii: dict[str, Tensor]
) -> list[str]:
    """One line for every changed image that is inside a certificate and has another class."""
    moved = distances(changed, images, "linf")
    predicted = classes_of(model, changed)
    lines = []
    for kind, proved in radii.items():
        inside = (proved > 0) & (moved <= proved)  # a radius of 0 says that nothing is proved
        for i in torch.nonzero((predicted != labels) & inside)[:, 0].tolist():
            lines.append(
                f"image {i}: {int(labels[i])} became {int(predicted[i])} at distance {moved[i]:.9g}, "
                f"inside the radius {proved[i]:.9g} ({kind})"
            )
    return lines


def at_radius(model: NMODE, images: Tensor, labels: Tensor, queries: int) -> list[str]:
    """Attack every image at its own certified radius, and say which attack found how much.

    Images of about the same radius are attacked together: the attacks of torchattacks take one radius for
    all, the smallest of the batch, while vertices and ascents use that of each image.

    Returns:
        Counterexamples, one line each.
    """
    radii = interval_radii(model.features, model.head, images, labels, 0.5, 1e-5, (0.0, 1.0), BATCH)
    certified = torch.nonzero(radii > 0)[:, 0]
    certified = certified[radii[certified].argsort()]
    if len(certified) == 0:
        print("No image has a certified radius.")
        return []
    kinds = ("vertices", "PGD", "APGD", "Square")
    closest = dict.fromkeys(kinds, math.inf)
    lines = []
    for part in certified.split(BATCH):
        x, y, reach = images[part], labels[part], radii[part]
        smallest = float(reach[0])
        apgd = torchattacks.APGD(model, eps=smallest, steps=STEPS, n_restarts=2)
        square = torchattacks.Square(model, eps=smallest, n_queries=queries)
        pgd = MarginPGD(steps=STEPS, restarts=5)(model, x, y, inner(reach))
        found = vertices(model, x, y, reach), pgd, apgd(x, y), square(x, y)
        for kind, changed in zip(kinds, found, strict=True):
            closest[kind] = min(closest[kind], float(margin(model, changed, y).detach().min()))
            for line in counterexamples(model, x, y, changed.detach(), {"at its radius": reach}):
                lines.append(f"{kind}: {line}")
    print(f"{len(certified)} of {len(images)} images have a certified radius, median {radii.median():.4f}")
    shown = ", ".join(f"{kind} {value:.3g}" for kind, value in closest.items())
    print(f"The smallest margins that attacks at the radius leave: {shown}")
    return lines


def inner(radii: Tensor) -> Tensor:
    """Radii (n,) in float32 that rounding does not carry anybody across."""
    return (radii - ROUNDING).clamp(min=0).float()


def within(images: Tensor, change: Tensor, radii: Tensor) -> Tensor:
    """Images + change, not farther away than the radii (n,) and in [0, 1]; exact, in float32."""
    reach = inner(radii).view(-1, 1, 1, 1)
    return (images + change.clamp(-reach, reach)).clamp(0, 1)


def vertices(model: nn.Module, images: Tensor, labels: Tensor, radii: Tensor, tries: int = 20) -> Tensor:
    """The random vertex of each image's box with the smallest margin."""
    best = images.clone()
    for _ in range(tries):
        signs = torch.randint(0, 2, images.shape).float() * 2 - 1
        best = nearer(model, labels, best, within(images, signs, radii))
    return best


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
    model = trained(arguments.run)
    images, labels = test_images(arguments.run, arguments.max_images)
    if arguments.at_radius:
        conclude(at_radius(model, images, labels, arguments.queries))
        return
    clean = classes_of(model, images) == labels
    radii = certified_radii(model, images, labels, arguments.delta)
    known, broken = attacks(model, arguments.delta, model.head.out_features), []
    withstood: dict[str, Tensor] = {}
    print(f"\n{arguments.run}: {len(images)} test images, L∞ distance δ = {arguments.delta:g}\n")
    print("| | accuracy in % | largest distance |\n|---|---|---|")
    print(f"| clean | {100 * clean.double().mean():.2f} | 0 |", flush=True)
    for name in names:
        title, attack = known[name]
        changed = attacked(model, attack, images, labels)
        withstood[name] = classes_of(model, changed) == labels
        share, largest = withstood[name].double().mean(), distances(changed, images, "linf").max()
        print(f"| {title} | {100 * share:.2f} | {largest:.7f} |", flush=True)
        broken += [f"{title}: {line}" for line in counterexamples(model, images, labels, changed, radii)]
    for kind, proved in radii.items():
        share = (clean & (proved >= arguments.delta)).double().mean()
        print(f"| certified: {kind} | {100 * share:.2f} | |")
    print(f"\n{masking(withstood)}")
    conclude(broken)


if __name__ == "__main__":
    main()
