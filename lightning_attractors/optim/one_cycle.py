"""A one-cycle schedule for groups with learning rates of their own."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_attractors.errors import require


class OneCycle(LRScheduler):
    """One cosine rise and one cosine fall of every group's learning rate over the whole training.

    Each group's own learning rate is the peak, so groups with different optimisers share one schedule.
    Step it once per optimizer step.

    Args:
        optimizer: the optimiser.
        warmup: share of the steps that the rise takes, in (0, 1).
        start: learning rate at the beginning, as a fraction of the peak, in [0, 1].
        final: learning rate at the end, as a fraction of the peak, in [0, 1].
        total_steps: length of the training in optimizer steps; when left out, the model fills it in.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.3,
        start: float = 0.04,
        final: float = 1e-3,
        total_steps: int | None = None,
    ) -> None:
        require(0 < warmup < 1, "warmup", warmup, "must lie strictly between 0 and 1")
        require(0 <= start <= 1, "start", start, "must lie in [0, 1]")
        require(0 <= final <= 1, "final", final, "must lie in [0, 1]")
        self.warmup, self.start, self.final = warmup, start, final
        self.total_steps = total_steps
        super().__init__(optimizer)

    def _factor(self) -> float:
        progress = min(1.0, self.last_epoch / self.total_steps) if self.total_steps else 0.0
        if progress < self.warmup:
            low, phase = self.start, 1 - progress / self.warmup
        else:
            low, phase = self.final, (progress - self.warmup) / (1 - self.warmup)
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * phase))

    def state_dict(self) -> dict[str, Any]:
        # The length is this training's own: a run that is resumed for longer has a longer cycle.
        return {key: value for key, value in super().state_dict().items() if key != "total_steps"}

    def get_lr(self) -> list[float | Tensor]:
        factor = self._factor()
        return [base * factor for base in self.base_lrs]
