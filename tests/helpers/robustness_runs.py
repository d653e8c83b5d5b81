"""Runs of a robustness curve on a classifier that is easy to follow, and what they leave."""

import csv
import importlib.util
import json
from pathlib import Path

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from lightning_attractors.callbacks import RobustnessCurve

COUNT = 40
EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    """The module of a script, such as ``studies/compare_runs``."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Bright(L.LightningModule):
    """Tells by their mean whether images are bright, and how surely by ``scale``."""

    def __init__(self, scale=40.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.part = nn.Dropout(0.5)

    def forward(self, images):
        mean = self.part(images).flatten(1).mean(dim=1)
        return self.scale * torch.stack([0.5 - mean, mean - 0.5], dim=1)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def pictures():
    """Images about as bright as 0.3 to 0.7, none of them near 0 or 1, and whether they are bright."""
    generator = torch.Generator().manual_seed(0)
    images = 0.2 * torch.rand(COUNT, 1, 4, 4, generator=generator)
    images += torch.linspace(0.2, 0.6, COUNT).view(-1, 1, 1, 1)
    return images, (images.mean(dim=(1, 2, 3)) > 0.5).long()


def loader(batch_size=7):
    return DataLoader(TensorDataset(*pictures()), batch_size=batch_size)


def measured(path, module=None, data=None, trainer_settings=None, **settings):
    """The callback after a test, and what it has written of its first attack."""
    callback = RobustnessCurve(**{"masking": False, "batch_size": 16, **settings})
    trainer = quiet_trainer(path, [callback], **(trainer_settings or {}))
    trainer.test(module or Bright(), data or loader(), verbose=False)
    return callback, report(path, callback.attacks[0].name)


def report(path, name):
    return json.loads((path / "robustness" / f"{name}.json").read_text())


def rows(path, name):
    with open(path / "robustness" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


class Certified(Bright):
    """Offers the exact radius times a factor."""

    factor = 1.0

    def certified_radii(self, images, labels):
        return self.factor * (images.double().mean(dim=(1, 2, 3)) - 0.5).abs() * (1 - 1e-6)
