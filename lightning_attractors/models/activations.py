"""Activations whose powers stay within float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

ActivationName = Literal["ReLU", "ELU", "GELU", "PReLU", "rExp"]

# The largest feature: sums of squares of its gradients over a batch stay far from the end of float32.
_LARGEST_FEATURE = 1e6
# Far below any bound that needs a scale, and where a logarithm is finite.
_SMALLEST_BOUND = 1e-3


class PoweredActivation(nn.Module):
    r"""σ(x)ⁿ, divided by a constant per channel where it could become too large.

    Inputs of channel k are known to lie in [−b_k, b_k]. The output is (σ(x)/s_k)ⁿ with
    s_k = max(1, max|σ(±b_k)| / 10^(6/n)), so that it never exceeds 10⁶, whatever n. Where |σ(±b_k)|ⁿ ≤ 10⁶,
    s_k is 1 and the output exactly σ(x)ⁿ; elsewhere the factor s_kⁿ, one per channel, is one that a linear
    layer behind it can absorb. Values below the smallest of float32 are 0, as in the power itself.

    Args:
        name: σ: ``ReLU``, ``ELU``, ``GELU``, ``PReLU`` (one trained slope) or ``rExp``, max(0, eˣ − 1).
        power: n, at least 1.
    """

    def __init__(self, name: ActivationName, power: int) -> None:
        super().__init__()
        self.function = _FUNCTIONS[name]()
        self.power = power

    def forward(self, x: Tensor, bounds: Tensor) -> Tensor:
        """Features of the shape of x (B, F, H, W), for bounds (F,)."""
        ceiling = _LARGEST_FEATURE ** (1 / self.power)
        scaled: Tensor = self.function(x, bounds[:, None, None], ceiling)
        return scaled.pow(self.power)


class _Scaled(nn.Module):
    """σ(x)/s for a σ that grows no faster than x."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, bounds: Tensor, ceiling: float) -> Tensor:
        largest = torch.maximum(self.function(bounds).abs(), self.function(-bounds).abs())
        return self.function(x) / (largest / ceiling).clamp(min=1)


class _RectifiedExponential(nn.Module):
    """The same for max(0, eˣ − 1), with s kept as its logarithm: eˣ itself would overflow."""

    def forward(self, x: Tensor, bounds: Tensor, ceiling: float) -> Tensor:
        bounds = bounds.clamp(min=_SMALLEST_BOUND)
        log_largest = bounds + torch.log(-torch.expm1(-bounds))
        log_scale = (log_largest - math.log(ceiling)).clamp(min=0)
        return (torch.expm1(x - log_scale) - torch.expm1(-log_scale)).clamp(min=0)


_FUNCTIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": lambda: _Scaled(nn.ReLU()),
    "ELU": lambda: _Scaled(nn.ELU()),
    "GELU": lambda: _Scaled(nn.GELU()),
    "PReLU": lambda: _Scaled(nn.PReLU()),
    "rExp": _RectifiedExponential,
}
