"""The two checkpoints of a run: the best one, and the last one for resuming."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_attractors.contracts import monitored, phases_of


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: the weights of the best epoch by a validation metric, written at the end of epochs.

    Args:
        monitor: the metric; by default what the module names in its attribute ``monitor``. Without one, or
            if the module's metric is not logged, the newest weights count as the best. Epochs in which a
            ``TwoPhaseTrainer`` learns filters do not count.
        mode: whether the ``max`` or the ``min`` of the metric is best; by default what the module says in its
            attribute ``monitor_mode``, or else ``max``.
        filename: name of the file, without its ending.
        **settings: as for ``lightning.pytorch.callbacks.ModelCheckpoint``.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Literal["max", "min"] | None = None,
        filename: str = "best",
        **settings: Any,
    ) -> None:
        super().__init__(
            monitor=monitor,
            mode=mode or "max",
            filename=filename,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            **settings,
        )
        self._chosen_by_user = monitor is not None
        self._mode_is_open = mode is None
        self._modules_own: str | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._chosen_by_user:
            return
        self._modules_own, mode = monitored(pl_module)
        if self._mode_is_open and mode == "min":
            self.mode = "min"
            self.kth_value = torch.tensor(torch.inf)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        phases = phases_of(trainer)
        if phases is not None and phases.learns_filters:
            return
        if not self._chosen_by_user:
            # Decided anew: the first epochs may have no validation.
            known = self._modules_own in trainer.callback_metrics
            self.monitor = self._modules_own if known else None
        super().on_train_epoch_end(trainer, pl_module)


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``: the state after the newest epoch, from which ``--ckpt_path last`` goes on."""

    def __init__(self) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
