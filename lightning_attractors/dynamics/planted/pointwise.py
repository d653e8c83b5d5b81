"""Functions that act node by node, with what a certificate has to know of them: three derivatives."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Pointwise(ABC):
    """h(x), elementwise, with its derivatives and the places where these turn.

    Attributes:
        is_affine: whether h″ = 0 everywhere.
    """

    is_affine = False

    @abstractmethod
    def derivative(self, x: Tensor, order: int) -> Tensor:
        """H itself at x for the order 0, or its derivative of the order 1, 2 or 3."""

    @abstractmethod
    def extrema(self, order: int) -> tuple[float, ...]:
        """All places at which the derivative of the order 2 or 3 has an extremum."""

    @abstractmethod
    def size(self, x: Tensor) -> Tensor:
        """Σ|terms| of computing h anywhere up to |x|, x ≥ 0: what its rounding is a share of."""

    def range(self, lower: Tensor, upper: Tensor, order: int) -> tuple[Tensor, Tensor]:
        """Bounds of the derivative of the order 2 or 3 over intervals with these ends, shapes as theirs."""
        ends = self.derivative(lower, order), self.derivative(upper, order)
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        for place in self.extrema(order):
            value = self.derivative(torch.full_like(lower, place), order)
            inside = (lower < place) & (place < upper)
            low = torch.where(inside, torch.minimum(low, value), low)
            high = torch.where(inside, torch.maximum(high, value), high)
        return low, high


class Cubic(Pointwise):
    """h(x) = linear · x + cubic · x³.

    Args:
        linear: coefficient of x.
        cubic: coefficient of x³.
    """

    def __init__(self, linear: float, cubic: float = 0.0) -> None:
        self.linear, self.cubic = linear, cubic
        self.is_affine = cubic == 0

    def derivative(self, x: Tensor, order: int) -> Tensor:
        if order == 0:
            return x * (self.linear + self.cubic * x * x)
        if order == 1:
            return self.linear + 3 * self.cubic * x * x
        return 6 * self.cubic * x if order == 2 else torch.full_like(x, 6 * self.cubic)

    def extrema(self, order: int) -> tuple[float, ...]:
        return ()

    def size(self, x: Tensor) -> Tensor:
        return x * (abs(self.linear) + abs(self.cubic) * x * x)


class Hill(Pointwise):
    """h(x) = x² / (c + x²).

    Args:
        c: above 0.
    """

    def __init__(self, c: float) -> None:
        self.c = c

    def derivative(self, x: Tensor, order: int) -> Tensor:
        c, squared = self.c, x * x
        if order == 0:
            return squared / (c + squared)
        if order == 1:
            return 2 * c * x / (c + squared) ** 2
        if order == 2:
            return 2 * c * (c - 3 * squared) / (c + squared) ** 3
        return -24 * c * x * (c - squared) / (c + squared) ** 4

    def extrema(self, order: int) -> tuple[float, ...]:
        if order == 2:
            root = self.c**0.5
            return (-root, 0.0, root)
        # where h⁗ = 0, c² − 10 c x² + 5 x⁴ = 0
        near, far = ((self.c * (1 + sign * 2 / 5**0.5)) ** 0.5 for sign in (-1, 1))
        return (-far, -near, near, far)

    def size(self, x: Tensor) -> Tensor:
        return self.derivative(x, 0)  # there is nothing to cancel
