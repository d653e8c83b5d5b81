"""Progress for logs: one line per epoch, where there is no terminal to draw a bar on."""

from __future__ import annotations

import time

import lightning as L
from lightning.pytorch.callbacks import Callback


class EpochLines(Callback):
    """Prints one line per training epoch: its number, its duration and every logged metric."""

    def __init__(self) -> None:
        self._started = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            seconds = time.monotonic() - self._started
            metrics = "  ".join(
                f"{name} {value.item():.4g}" for name, value in sorted(trainer.callback_metrics.items())
            )
            print(f"epoch {trainer.current_epoch}  {seconds:.1f} s  {metrics}", flush=True)
