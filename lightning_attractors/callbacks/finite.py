"""Stop a training that diverges while its last checkpoint is still good."""

from __future__ import annotations

import re
from typing import NoReturn

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_attractors.contracts import divergence_hint, gradient_scaler
from lightning_attractors.errors import NonFiniteError

_RECORDS = {"best", "min", "minimum", "lowest", "smallest"}


class FiniteLoss(Callback):
    """Stops training before a value that is not finite reaches the weights or a checkpoint.

    The loss is checked before the backward pass, the gradients before the optimizer step (unless a gradient
    scaler deals with them) and the logged losses before an epoch's checkpoints are written: metrics with the
    word ``loss`` in their name, but for records such as ``best_val_loss``.

    Works with any module; one that has a ``divergence_hint`` names the settings to look at.

    Raises:
        NonFiniteError: naming the step, the epoch and what to change.
    """

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        finite = bool(loss.isfinite())
        # All ranks stop together, whichever of them saw it: one that goes on would wait for the others.
        if trainer.world_size > 1:
            finite = trainer.strategy.reduce_boolean_decision(finite, all=True)
        if not finite:
            _stop(trainer, pl_module, "loss", loss)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        if gradient_scaler(trainer) is None:
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            _check(trainer, pl_module, "gradient norm", nn.utils.get_total_norm(gradients))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, value in trainer.callback_metrics.items():
            if _is_loss(name):
                _check(trainer, pl_module, name, value)


def _is_loss(name: str) -> bool:
    """Whether a metric is a loss of this epoch, and not a record of the past, which may start at infinity."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return "loss" in words and not words & _RECORDS


def _check(trainer: L.Trainer, module: L.LightningModule, name: str, value: Tensor) -> None:
    if not bool(value.isfinite()):
        _stop(trainer, module, name, value)


def _stop(trainer: L.Trainer, module: L.LightningModule, name: str, value: Tensor) -> NoReturn:
    raise NonFiniteError(
        f"{name} is {value.item()} at step {trainer.global_step} (epoch {trainer.current_epoch}): "
        f"training stopped, the last checkpoint is untouched; {divergence_hint(module)}"
    )
