import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from trainers import quiet_trainer

from lightning_attractors.callbacks import FiniteLoss
from lightning_attractors.errors import NonFiniteError


class Diverges(L.LightningModule):
    """Goes wrong at batch 2 in one of three ways."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).sum()
        if batch_idx == 2 and self.way == "loss":
            return loss * torch.nan
        if batch_idx == 2 and self.way == "gradient":
            return (loss - loss.detach()).abs().sqrt()  # 0, with an infinite slope
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", torch.tensor(torch.inf if self.way == "metric" else 1.0))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Records(Diverges):
    """Logs the best loss before there is one."""

    def validation_step(self, batch, batch_idx):
        self.log("best_val_loss", torch.tensor(torch.inf))


def test_a_record_that_has_not_begun_stops_nothing(tmp_path):
    trainer = quiet_trainer(tmp_path, [FiniteLoss()], max_epochs=1)
    trainer.fit(Records("no way"), torch.ones(4, 2), torch.ones(1, 2))
    assert trainer.global_step == 4


def test_weights_that_were_not_finite_from_the_start_are_named(tmp_path):
    module = Diverges("no way")
    with torch.no_grad():
        module.layer.weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"layer\.weight is not finite: load other weights"):
        quiet_trainer(tmp_path, [FiniteLoss()], max_epochs=1).fit(module, torch.ones(4, 2))


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("loss", r"^loss is nan at step 2 \(epoch 0\).*learning rate"),
        ("gradient", r"^gradient norm is nan at step 2"),
        ("metric", r"^val/loss is inf at step 4"),
    ],
)
def test_training_stops_before_weights_or_checkpoints_are_touched(tmp_path, way, message):
    module = Diverges(way)
    callbacks = [FiniteLoss(), ModelCheckpoint(save_on_train_epoch_end=True)]
    trainer = quiet_trainer(tmp_path, callbacks, max_epochs=1, enable_checkpointing=True)
    with pytest.raises(NonFiniteError, match=message):
        trainer.fit(module, torch.ones(4, 2), torch.ones(1, 2))
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert not list(tmp_path.rglob("*.ckpt"))
