"""Layers of norm 1, or of a known one: linear maps with a bias, and averages."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_attractors.dynamics.nonexpansive.operators import Operator
from lightning_attractors.errors import SettingError, require


class ControlledLinear(nn.Module):
    """x ↦ A x / max(1, ‖A‖) + b: of norm at most 1, whatever the weight.

    Serves as a lift (more outputs than inputs), a projection (fewer) and a head, dense or, with a
    :class:`~lightning_attractors.dynamics.nonexpansive.ConvolutionOperator`, on images.

    Args:
        operator: A.
        controlled: whether to divide; if not, it is an ordinary linear layer.

    Attributes:
        bias: b, one number per output feature or channel.
    """

    def __init__(self, operator: Operator, controlled: bool = True) -> None:
        super().__init__()
        self.operator, self.controlled = operator, controlled
        self.bias = nn.Parameter(torch.zeros(len(operator.weight)))

    @property
    def scale(self) -> float:
        """What A is multiplied by."""
        if not self.controlled:
            return 1.0
        norm = self.operator.checked_norm()
        # as in GradientFlow.count: the same scale with whichever quick norm
        return 1 / max(1.0, self.operator.norm_bound()) if norm > 1 else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, outputs) of x (B, inputs), or (B, outputs, H, W) of images."""
        y, scale = self.operator(x), self.scale
        if scale < 1:
            y = y * scale
        return y + self.bias.view(-1, *(1,) * (x.dim() - 2))

    def gain_bound(self) -> float:
        """Bound of ‖f(x) − f(y)‖ / ‖x − y‖."""
        return self.scale * self.operator.norm_bound()


class ScaledAvgPool(nn.Module):
    """Averages over windows of k × k pixels that do not overlap, times k: of norm 1 (1/k without the factor).

    Args:
        size: k, at least 1.

    Raises:
        SettingError: if ``size`` is below 1, or does not divide the images' sides.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        require(size >= 1, "pool", size, "must be at least 1")
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, channels, H/k, W/k) of images (B, channels, H, W)."""
        if any(side % self.size for side in x.shape[2:]):
            raise SettingError(
                "pool", self.size, f"must divide the sides of the images, {tuple(x.shape[2:])}"
            )
        return functional.avg_pool2d(x, self.size) * self.size

    def gain_bound(self) -> float:
        """1: every output is a unit vector's product with a window of its own."""
        return 1.0
