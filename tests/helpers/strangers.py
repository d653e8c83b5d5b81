"""A module and a data module that know nothing of this package, for the command line."""

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
