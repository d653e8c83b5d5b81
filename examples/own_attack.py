"""Two attacks of one's own beside a known one, after every fit: ``python examples/own_attack.py``.

An attack takes ``(logits_fn, images, labels, strength)`` and gives images in [0, 1] of the same shape. As
this model certifies radii, the run fails if any attack finds an image misclassified within its own.
"""

import itertools
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning as L
import torch
from torch.nn import functional

from lightning_attractors.callbacks import RobustnessCurve
from lightning_attractors.data import LettersDataModule
from lightning_attractors.models import NMODE
from lightning_attractors.robustness import PGD


@torch.no_grad()
def occlude(logits_fn, images, labels, strength):
    """Cover the square that hurts most; its side is the strength times the image's. Asks for no gradient."""
    side = round(strength * images.shape[-1])
    places = range(images.shape[-1] - side + 1)
    worst, loss = images, functional.cross_entropy(logits_fn(images), labels, reduction="none")
    for top, left in itertools.product(places, places):
        covered = images.clone()
        covered[..., top : top + side, left : left + side] = 0.5
        found = functional.cross_entropy(logits_fn(covered), labels, reduction="none")
        worst = torch.where((found > loss)[:, None, None, None], covered, worst)
        loss = torch.maximum(found, loss)
    return worst


@dataclass(frozen=True)
class SparsePGD(PGD):
    """PGD from the images on, whose steps move only the share of the pixels with the largest gradient."""

    share: float = 0.1

    def start(self, images, strength):
        return images

    def direction(self, gradient):
        size = gradient.flatten(1).abs()
        least = size.quantile(1 - self.share, dim=1).view(-1, 1, 1, 1)
        return super().direction(gradient) * (gradient.abs() >= least)


def main(folder=Path("runs/own_attack"), epochs=5):
    L.seed_everything(0)
    attacks = [PGD(steps=20), SparsePGD(steps=20), occlude]
    curve = RobustnessCurve(attacks, strengths=[0.15, 0.3, 0.45, 0.6, 0.75], confidence=0.5, max_images=300)
    adam = partial(torch.optim.Adam, lr=0.01)
    model = NMODE(num_classes=5, image_shape=(1, 7, 7), width=64, optimizer=adam)
    trainer = L.Trainer(
        max_epochs=epochs, callbacks=[curve], default_root_dir=folder, accelerator="cpu", logger=False
    )
    trainer.fit(model, LettersDataModule())
    for name, found in curve.results.items():
        print(f"{name}: broke {found['images']['broken']} of {found['images']['counted']} images")
    print(f"Tables and pictures: {folder}/robustness")


if __name__ == "__main__":
    main()
