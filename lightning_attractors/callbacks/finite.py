"""Stop before a loss that is not finite reaches the weights."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_attractors.errors import NonFiniteError


class FiniteLoss(Callback):
    """Raises before the backward pass of a loss that is not finite, so the last checkpoint stays good.

    Works with any module; one that has a ``divergence_hint`` names the settings to look at.

    Raises:
        NonFiniteError: naming the step, the epoch and what to change.
    """

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        if not bool(loss.isfinite()):
            hint = getattr(pl_module, "divergence_hint", "lower the learning rate")
            raise NonFiniteError(
                f"loss is {float(loss)} at step {trainer.global_step} (epoch {trainer.current_epoch}): "
                f"training stopped, the last checkpoint is untouched; {hint}"
            )
