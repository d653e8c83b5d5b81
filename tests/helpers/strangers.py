"""A module and a data module that know nothing of this package, for the command line."""

import math

import lightning as L
import torch

from lightning_attractors.models import NMODE


class Net(L.LightningModule):
    """Logs under names of its own, and predicts dictionaries."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.layer = torch.nn.Linear(4, width)

    def training_step(self, batch, batch_idx):
        return self.layer(batch["pixels"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("quality", self.training_step(batch, batch_idx))

    def predict_step(self, batch, batch_idx):
        return {"width": self.layer(batch["pixels"]).shape[1]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Plain(Net):
    """Has no settings, and a metric that it does not log before training."""

    def __init__(self):
        super().__init__()

    def validation_step(self, batch, batch_idx):
        self.log("val/other", 1.0)
        if not self.trainer.sanity_checking:
            self.log("val/quality", 1.0)


class OwnSettings(NMODE):
    """One of this package's models, whose settings it passes on."""

    def __init__(self, extra: int = 1, **settings):
        super().__init__(**settings)
        self.extra = extra


class Data(L.LightningDataModule):
    def train_dataloader(self):
        return torch.utils.data.DataLoader([{"pixels": torch.ones(4)}] * 4, batch_size=2)

    val_dataloader = predict_dataloader = train_dataloader


class Tensors(L.LightningDataModule):
    """Says neither shape nor classes; images of several kinds."""

    def __init__(
        self,
        size: int = 6,
        classes: int = 3,
        kind: str = "tensors",
        named: bool = False,
        shuffled: bool = False,
        count: int = 12,
    ):
        super().__init__()
        self.size, self.classes, self.kind, self.named, self.shuffled = size, classes, kind, named, shuffled
        self.count = count

    def setup(self, stage=None):
        labels = torch.arange(self.count) % 3
        shape = self.count, 1, self.size, self.size - 1
        images = torch.linspace(0, 1, math.prod(shape)).view(shape)
        kinds = {
            "tensors": images,
            "dicts": images,
            "bytes": (255 * images).byte(),
            "flat": images.flatten(1),
        }
        self.examples = list(zip(kinds[self.kind], labels, strict=True))
        if self.kind == "dicts":
            self.examples = [{"image": image, "label": label} for image, label in self.examples]
        elif self.named:
            self.examples = torch.utils.data.TensorDataset(images, labels)
            self.examples.classes = [f"class {k}" for k in range(self.classes)]

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.examples, batch_size=6, shuffle=self.shuffled)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(self.examples, batch_size=6)

    test_dataloader = predict_dataloader = val_dataloader
