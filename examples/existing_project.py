"""An existing Lightning project, with one line added: ``python examples/existing_project.py``.

Two plain CNNs are trained on generated images, in seconds. The one has batches that are dicts and inputs that
are normalised, the other's ``forward`` gives a tuple. What ``RobustnessCurve`` must be told of that is said
by its arguments; nothing in the modules is for its sake.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from lightning_attractors.callbacks import RobustnessCurve

MEAN, STD = [0.3], [0.25]
CLASSES, SIDE = 4, 12


class Bands(Dataset[dict[str, Tensor]]):
    """Noisy images with a bright band whose place is the class; dicts of normalised pixels and a target."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.arange(count) % CLASSES
        images = 0.4 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
        for image, target in zip(images, self.targets.tolist(), strict=True):
            image[:, 3 * target : 3 * target + 3] += 0.25 + 0.35 * torch.rand((), generator=generator)
        self.pixels = (images - MEAN[0]) / STD[0]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixels": self.pixels[index], "target": self.targets[index]}


class Pairs(Bands):
    """The same as pairs of an image in [0, 1] and its class."""

    def __getitem__(self, index: int) -> Any:
        return self.pixels[index] * STD[0] + MEAN[0], self.targets[index]


class PlainCNN(L.LightningModule):
    """A CNN as in any project, whose batches are dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(200, CLASSES)
        )

    def forward(self, pixels: Tensor) -> Any:
        return self.layers(pixels)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return functional.cross_entropy(self(batch["pixels"]), batch["target"])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class TupleCNN(PlainCNN):
    """A CNN whose forward gives features too."""

    def forward(self, pixels: Tensor) -> Any:
        features = self.layers[:-1](pixels)
        return self.layers[-1](features), features

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, targets = batch
        return functional.cross_entropy(self(images)[0], targets)


def of_dict(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Images and labels of a batch."""
    return batch["pixels"], batch["target"]


def first_output(module: L.LightningModule, images: Tensor) -> Tensor:
    """Logits of a module that gives more than them."""
    logits: Tensor = module(images)[0]
    return logits


def run(module: L.LightningModule, data: type[Bands], curve: RobustnessCurve, folder: Path) -> None:
    """Train and test, as ever."""
    trainer = L.Trainer(
        max_epochs=3,
        callbacks=[curve],
        default_root_dir=folder,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, DataLoader(data(800, seed=0), batch_size=50, shuffle=True))
    trainer.test(module, DataLoader(data(600, seed=1), batch_size=200), verbose=False)


def main() -> None:
    """Train both, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/existing_project"), help="for the outputs")
    folder: Path = parser.parse_args().folder
    L.seed_everything(0)
    dicts = RobustnessCurve(
        attacks=["fgsm_radius", "pgd_radius", "torchattacks.FGSM", "gaussian_noise"],
        strengths=[0.05, 0.1, 0.15, 0.2, 0.3, 0.4],
        after_fit=False,  # fit is given no test images
        unpack_batch=of_dict,
        mean=MEAN,
        std=STD,
    )
    run(PlainCNN(), Bands, dicts, folder / "dicts")
    tuples = RobustnessCurve(attacks=["pgd_radius"], after_fit=False, logits_fn=first_output)
    run(TupleCNN(), Pairs, tuples, folder / "tuple")
    for path in sorted(folder.glob("*/robustness/*.json")):
        found = json.loads(path.read_text())
        R = f"R = {found['R']:.4f} ± {found['uncertainty']:.4f}" if found["fitted"] else found["reason"]
        print(f"{path}: {R}")


if __name__ == "__main__":
    main()
