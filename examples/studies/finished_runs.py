"""What the studies of finished runs share: the model, its test images, and attacks on the margin."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import lightning as L
import torch
import yaml
from torch import Tensor, nn

from lightning_attractors import data
from lightning_attractors.norms import NormName, distances
from lightning_attractors.robustness import PGD
from lightning_attractors.robustness.attacks.base import margins

BATCH = 250
Attack = Callable[[Tensor, Tensor], Tensor]
# Takes images, labels and the radius of each, shape (B,), float64.
RadiusAttack = Callable[[Tensor, Tensor, Tensor], Tensor]
Model = TypeVar("Model", bound=L.LightningModule)


def trained(run: Path, family: type[Model]) -> Model:
    """The best model of a run, ready to be attacked."""
    checkpoint = run / "checkpoints" / "best.ckpt"
    return family.load_from_checkpoint(checkpoint, map_location="cpu").eval().requires_grad_(False)


def test_images(run: Path, count: int) -> tuple[Tensor, Tensor]:
    """The first test images of the data that a run's config names, and their labels."""
    settings = yaml.safe_load((run / "config.yaml").read_text())["data"]
    module = getattr(data, settings["class_path"].rpartition(".")[2])(**settings.get("init_args", {}))
    module.setup()
    images, labels = module.datasets["test"].__getitems__(range(min(count, len(module.datasets["test"]))))
    return images, labels


@torch.no_grad()
def classes_of(model: nn.Module, images: Tensor) -> Tensor:
    """Predicted classes (n,), batch by batch."""
    return torch.cat([model(part).argmax(dim=1) for part in images.split(BATCH)])


def attacked(model: nn.Module, attack: Attack, images: Tensor, labels: Tensor) -> Tensor:
    """What an attack makes of the images; those that are wrong already stay as they are."""
    right = torch.nonzero(classes_of(model, images) == labels)[:, 0]
    result = images.clone()
    for part in right.split(BATCH):
        result[part] = attack(images[part], labels[part]).detach()
    return result


class MarginPGD(PGD):
    """Projected gradient descent of the margin; radii may be one for every image."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return margins(logits, labels)


@torch.no_grad()
def lead(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """How far another class is ahead of the label, (n,), batch by batch: above 0 where the image is wrong."""
    parts = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    return torch.cat([margins(model(x), y) for x, y in parts])


def breaches(lead: Tensor, moved: Tensor, radii: Tensor) -> list[tuple[int, str]]:
    """Which images lie inside a certificate though another class is level or ahead: row and description.

    Args:
        lead: of the changed images, (n,).
        moved: how far each was moved, (n,).
        radii: certified, (n,); 0 says that nothing is proved.
    """
    rows = torch.nonzero((lead >= 0) & (radii > 0) & (moved <= radii))[:, 0].tolist()
    return [(i, f"falls at distance {moved[i]:.9g}, inside the radius {radii[i]:.9g}") for i in rows]


def attack_at_radii(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: Tensor,
    norm: NormName,
    jobs: Iterable[tuple[str, RadiusAttack, Tensor]],
) -> list[str]:
    """Attack images at their own certified radii, and say how near each kind of attack came.

    Args:
        model: the classifier.
        images: (N, C, H, W).
        labels: (N,).
        radii: certified, (N,), float64.
        norm: of the radii.
        jobs: what an attack is called, the attack, and the indices of the images that it is given.

    Returns:
        Counterexamples, one line each.
    """
    lines: list[str] = []
    closest: dict[str, float] = {}
    for kind, attack, part in jobs:
        x, y, reach = images[part], labels[part], radii[part]
        changed = attack(x, y, reach).detach()
        ahead = lead(model, changed, y)
        closest[kind] = min(closest.get(kind, math.inf), -float(ahead.max()))
        found = breaches(ahead, distances(changed, x, norm), reach)
        lines += [f"{kind}: image {int(part[i])} {text}" for i, text in found]
    shown = ", ".join(f"{kind} {value:.3g}" for kind, value in closest.items()) or "there are none"
    print(f"The smallest margins that attacks at the radius leave: {shown}", flush=True)
    return lines


def batches_by_radius(radii: Tensor) -> list[Tensor]:
    """Indices of the images with a radius above 0 in batches, the smallest radii first.

    Attacks of torchattacks take one radius for a whole batch: this way it is about that of each image.
    """
    certified = torch.nonzero(radii > 0)[:, 0]
    return list(certified[radii[certified].argsort()].split(BATCH)) if len(certified) else []


def conclude(broken: list[str]) -> None:
    """Say whether a certificate was broken, and exit with 1 if so."""
    if broken:
        sys.exit("A CERTIFICATE IS BROKEN:\n" + "\n".join(broken))
    print("No attacked image lies inside a certificate and has another class.")
