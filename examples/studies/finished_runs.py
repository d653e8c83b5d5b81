"""What the scripts that look at finished runs share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from lightning_attractors import data
from lightning_attractors.robustness import PGD

BATCH = 250
Attack = Callable[[Tensor, Tensor], Tensor]


def best_checkpoint(run: Path) -> Path:
    """The file of a run's best weights."""
    return run / "checkpoints" / "best.ckpt"


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


def margin(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """How far the logit of the label is above all others, (n,)."""
    return -_behind(model(images), labels)


def _behind(logits: Tensor, labels: Tensor) -> Tensor:
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return others - logits.gather(1, labels[:, None])[:, 0]


class MarginPGD(PGD):
    """Projected gradient descent of the margin; radii may be one for every image."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return _behind(logits, labels)


@torch.no_grad()
def nearer(model: nn.Module, labels: Tensor, best: Tensor, other: Tensor) -> Tensor:
    """Of two versions of each image the one with the smaller margin."""
    better = margin(model, other, labels) < margin(model, best, labels)
    return torch.where(better.view(-1, 1, 1, 1), other, best)


def conclude(broken: list[str]) -> None:
    """Say whether a certificate was broken, and exit with 1 if so."""
    if broken:
        sys.exit("A CERTIFICATE IS BROKEN:\n" + "\n".join(broken))
    print("No attacked image lies inside a certificate and has another class.")
