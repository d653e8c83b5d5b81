import lightning as L
import torch
from trainers import quiet_trainer

from lightning_attractors.callbacks import EpochLines


class Constant(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch, batch_idx):
        self.log("train/loss", torch.tensor(0.25))
        return self.weight

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_one_line_per_epoch_with_its_metrics(tmp_path, capsys):
    trainer = quiet_trainer(tmp_path, [EpochLines()], max_epochs=2)
    trainer.fit(Constant(), torch.ones(3, 1))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["0", "1"]
    assert all(line.endswith("train/loss 0.25") for line in lines)
