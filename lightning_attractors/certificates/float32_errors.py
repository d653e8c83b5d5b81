"""How far the float32 evaluation of a non-expansive network can be off, at any image of an L2 ball.

Every layer is followed over balls of all radii r at once. To its exact activations at the middle, in float64,
belong two numbers: how far the exact activations elsewhere may be from them, and how far what float32 gives
may be from exact ones. Both are of the form a + b r, in L2.

A sum of n products t, in whatever order and with or without fused multiply-add, is off by at most
γ_n max(Σ_{t>0} t, Σ_{t<0} |t|), up to terms of second order that are counted too: no partial sum of the exact
products is larger. That is half of the γ_n Σ|t| of :mod:`~lightning_attractors.certificates.rounding` where
they cancel. In the middle these sums are computed, and elsewhere they are larger by at most ‖|A|‖₂ times the
distance. The steps of a flow are followed operation by operation, by the code that takes them; what came into
a step is not amplified by it if the step is non-expansive.

Covered are float32 (or float64) sums of products in any order, on any device, outside autocast. Not covered
are bfloat16, float16 and TF32, convolutions that do not sum products (Winograd, FFT): where these may run,
there is no certificate. Of elementwise functions no proof is given: σ is taken to be within
2⁻¹⁹ (|σ(c)| + L), which is tested, and once more on every image.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_attractors.certificates.rounding import LARGEST, UNDERFLOW, UNIT, accumulated
from lightning_attractors.dynamics.nonexpansive import Monotone, Operator
from lightning_attractors.errors import require
from lightning_attractors.linalg import quick_matrix_norm

# An elementwise function; those of torch need less than a third, on the CPU.
_FUNCTION_ERROR = 32 * UNIT
# Rounding of float64 in an elementwise function, and much more.
_SAME = 1e-12
# On top of the products: scale, its rounding, bias and its addition, and, of logits, the temperature.
_SCALE_AND_BIAS = 8


@dataclass(frozen=True)
class Evaluation:
    """Activations at any image at distance r ≤ any radius from given ones, as float32 evaluates them.

    Sums and multiples of it round as those of float32 tensors do.

    Attributes:
        value: what they are at the given images, exactly, shape (B, ...), float64.
        spread: how far from it they may be elsewhere, exactly: a and b of a + b r, shape (B, 2).
        error: how far what float32 gives may be from them, in the same form.
    """

    value: Tensor
    spread: Tensor
    error: Tensor

    @classmethod
    def of_images(cls, images: Tensor) -> Evaluation:
        """The images themselves, shape (B, ...), float64."""
        nothing = images.new_zeros(len(images), 2)
        return cls(images, nothing + nothing.new_tensor([0.0, 1.0]), nothing)

    @property
    def size(self) -> Tensor:
        """What the norm of the float32 activations is at most, in the same form."""
        return _without_overflow(_constant(_norms(self.value)) + self.spread + self.error)

    def rounded(self, operations: int) -> Evaluation:
        """The same after so many further roundings of every entry."""
        return replace(self, error=self.error + accumulated(operations) * self.size)

    def __add__(self, other: Evaluation) -> Evaluation:
        spread, error = self.spread + other.spread, self.error + other.error
        return Evaluation(self.value + other.value, spread, error).rounded(1)

    def __rmul__(self, factor: float) -> Evaluation:
        size = abs(factor)  # which float32 rounds too
        return Evaluation(factor * self.value, size * self.spread, size * self.error).rounded(2)

    def __neg__(self) -> Evaluation:
        return replace(self, value=-self.value)


class Product:
    """An operator A times a factor, in float64 and with what its float32 products may be off by.

    Args:
        operator: A.
        scale: the factor.

    Attributes:
        exact: the operator of the scaled entries.
        absolute: that of their absolute values.
        norm: ‖A‖₂ from above.
        scale: the factor.
        absolute_norm: ‖|A|‖₂ from above. Of a convolution it is that of the taps' sum: no symbol of a kernel
            without negative entries is larger than the one at frequency 0, for either padding.
    """

    def __init__(self, operator: Operator, scale: float = 1.0) -> None:
        self.exact, self.absolute = _twin(operator), _twin(operator)
        self.exact.weight.mul_(scale)
        self.absolute.weight.mul_(scale).abs_()
        self.norm, self.scale = scale * operator.norm_bound(), scale
        weight = self.absolute.weight
        self.absolute_norm = quick_matrix_norm(weight.view(*weight.shape[:2], -1).sum(dim=2))

    def forward(self, x: Evaluation, bias: Tensor) -> Evaluation:
        """A x + b."""
        offset = bias.double().view(-1, *(1,) * (x.value.dim() - 2))
        return self._applied(self.exact, self.absolute, x, self.exact.sums()[0], offset)

    def adjoint(self, y: Evaluation) -> Evaluation:
        """Aᵀ y."""
        return self._applied(self.exact.adjoint, self.absolute.adjoint, y, self.exact.sums()[1])

    def _applied(
        self,
        exact: Callable[[Tensor], Tensor],
        absolute: Callable[[Tensor], Tensor],
        x: Evaluation,
        terms: int,
        bias: Tensor | None = None,
    ) -> Evaluation:
        value = exact(x.value)
        # of the positive and of the negative products, whichever sum is larger
        largest = _constant(_norms(absolute(x.value.abs()) + value.abs()) / 2)
        largest = largest + self.absolute_norm * (x.spread + x.error)
        if bias is not None:
            value = value + bias
            largest = largest + _constant(_norms(bias.expand_as(value)))
        largest = _without_overflow(largest, LARGEST * min(1.0, self.scale))
        error = self.norm * x.error + _sum_error(terms) * largest
        underflow = _constant(x.error.new_full((len(value),), UNDERFLOW * math.sqrt(value[0].numel())))
        return Evaluation(value, self.norm * x.spread, error + underflow)


def activated(activation: Monotone, x: Evaluation) -> Evaluation:
    """σ(x).

    Raises:
        SettingError: if σ does not act on every entry of x by itself, or is off by more in float32.
    """
    slope, value = activation.lipschitz, activation(x.value.clone())
    y = Evaluation(value, slope * x.spread, slope * x.error)
    name, fits = type(activation.function).__name__, value.shape == x.value.shape
    alone = activation(x.value.flatten()) if fits else value
    apart = alone.view_as(value) - value if fits else value
    fits = fits and not bool((apart.abs() > _SAME * (value.abs() + slope)).any())
    require(fits, "activation", name, "must act on every entry by itself, whatever the shape")
    single = activation(x.value.float()).double()
    off = (single - activation(x.value.float().double())).abs() > _FUNCTION_ERROR * (value.abs() + slope)
    require(not bool(off.any()), "activation", name, "must be as good in float32 as in float64")
    entries = _constant(x.error.new_full((len(x.value),), slope * math.sqrt(x.value[0].numel())))
    return replace(y, error=y.error + _FUNCTION_ERROR * (y.size + entries))


def _sum_error(terms: int) -> float:
    share = accumulated(terms + _SCALE_AND_BIAS)
    return share * (1 + share)


def _without_overflow(sizes: Tensor, limit: float = LARGEST) -> Tensor:
    return sizes.masked_fill(sizes > limit, math.inf)


def _norms(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1)


def _constant(sizes: Tensor) -> Tensor:
    """Sizes a, shape (B,), as a + 0 r."""
    return torch.stack([sizes, torch.zeros_like(sizes)], dim=1)


def _twin(operator: Operator) -> Operator:
    return copy.deepcopy(operator).double().requires_grad_(False)
