import lightning as L
import pytest
import torch
from trainers import quiet_trainer

from lightning_attractors.callbacks import BestCheckpoint


class Rising(L.LightningModule):
    """Logs a loss of 0, 1, 2 in its three epochs, and an accuracy that rises too."""

    def __init__(self, **attributes):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        for name, value in attributes.items():
            setattr(self, name, value)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", float(self.current_epoch))
        self.log("val/accuracy", float(self.current_epoch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("attributes", "settings", "epoch"),
    [
        ({"monitor": "val/accuracy"}, {}, 2),
        ({"monitor": "val/loss", "monitor_mode": "min"}, {}, 0),
        ({"monitor": "val/loss"}, {"mode": "min"}, 0),
        ({"monitor": "val/loss", "monitor_mode": "min"}, {"monitor": "val/accuracy"}, 2),
        ({"monitor": "nothing"}, {}, 2),
    ],
)
def test_the_best_epoch_is_the_one_that_module_or_user_calls_best(tmp_path, attributes, settings, epoch):
    best = BestCheckpoint(dirpath=tmp_path, **settings)
    loader = torch.utils.data.DataLoader(torch.ones(2, 1))
    trainer = quiet_trainer(tmp_path, [best], max_epochs=3, enable_checkpointing=True, num_sanity_val_steps=0)
    trainer.fit(Rising(**attributes), loader, loader)
    assert torch.load(tmp_path / "best.ckpt", weights_only=False)["epoch"] == epoch
