"""Callbacks that do to a run what a power cut or a diverging step would."""

import math
import os
import signal

from lightning.pytorch.callbacks import Callback


class KillAt(Callback):
    """SIGKILL at the given batch of the given epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGKILL)


class PoisonAt(Callback):
    """Makes images nan in the given epoch, on one rank, after the first batch, which would be refused."""

    def __init__(self, epoch: int, rank: int = 0) -> None:
        self.epoch, self.rank = epoch, rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx and (trainer.current_epoch, trainer.global_rank) == (self.epoch, self.rank):
            batch[0].fill_(math.nan)
