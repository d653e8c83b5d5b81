"""Training against the worst logits that interval bounds allow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from lightning_attractors.errors import require


@dataclass(frozen=True)
class IntervalTraining:
    """κ CE(f(x), y) + (1 − κ) CE(worst logits of the L∞ ball of radius ε around x, y) (Gowal et al., 2018).

    After the warm-up ε grows linearly from 0 to its target while κ falls from 1 to its end, over the ramp.

    Args:
        epsilon: the target of ε, above 0 and at most 1.
        warmup: epochs before the ramp, at least 0.
        ramp: epochs that the ramp takes, at least 0.
        kappa_end: the end of κ, from 0 to 1.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    epsilon: float = 0.1
    warmup: float = 1.0
    ramp: float = 20.0
    kappa_end: float = 0.5

    def __post_init__(self) -> None:
        valid = "must be above 0 and at most 1"
        require(0 < self.epsilon <= 1, "intervals.epsilon", self.epsilon, valid)
        require(0 <= self.warmup < math.inf, "intervals.warmup", self.warmup, "must be finite and at least 0")
        require(0 <= self.ramp < math.inf, "intervals.ramp", self.ramp, "must be finite and at least 0")
        valid = "must be from 0 to 1"
        require(0 <= self.kappa_end <= 1, "intervals.kappa_end", self.kappa_end, valid)

    def schedule(self, epoch: float) -> tuple[float, float]:
        """ε and κ after so many epochs, a fraction of one included.

        Example:
            >>> IntervalTraining(epsilon=0.4, warmup=1, ramp=2).schedule(2.0)
            (0.2, 0.75)
        """
        done = epoch - self.warmup
        share = min(1.0, done / self.ramp) if self.ramp else 1.0
        share = share if done >= 0 else 0.0
        return share * self.epsilon, 1 - share * (1 - self.kappa_end)


def worst_case_loss(margins: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of the worst logits.

    Args:
        margins: lower bounds of logit_label − logit_j, shape (B, K), 0 at the label.
        labels: shape (B,).
    """
    return functional.cross_entropy(-margins, labels)


def is_certified(margins: Tensor, labels: Tensor) -> Tensor:
    """Whether the label wins against all other classes wherever the margins hold, shape (B,)."""
    return (margins > 0).scatter(1, labels[:, None], True).all(dim=1)
