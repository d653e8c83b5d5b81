"""Gain functions f of firing-rate networks, and the fixed points x = s f(x) that they allow a node."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from lightning_attractors.dynamics.planted.pointwise import Hill, Pointwise
from lightning_attractors.errors import require

_GRID = 20_001
# The grid ends beyond the last solution, which lies at the slope itself where f has reached 1.
_MARGIN = 1 + 1e-6


class Gain(ABC):
    """A gain f with f(0) = 0 and |f| ≤ 1, which turns a synaptic current into a firing rate."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """f(x), elementwise, differentiable; a new tensor."""

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor:
        """f′(x), elementwise; a new tensor."""

    def pointwise(self) -> Pointwise | None:
        """F with bounds of its derivatives, for certificates of basins; None, and there are none."""
        return None

    def alphabet(self, slope: float) -> list[float]:
        """The fixed points of a node, the solutions of x = ``slope`` f(x), ascending.

        Solved in float64: 0, and the sign changes of slope f(x) − x on 20,000 intervals either side of it,
        out to where |f| ≤ 1 confines them, each refined to the last bits by Brent's method. Two solutions in
        one interval are missed: a gain with a closed form should override this.

        Args:
            slope: s = βλ, above 0.
        """

        def excess(x: float) -> float:
            return slope * float(self(torch.tensor(x, dtype=torch.float64))) - x

        found = [0.0]
        for end in (-slope, slope):
            grid = np.linspace(0, end * _MARGIN, _GRID)[1:]
            values = slope * self(torch.from_numpy(grid)).numpy() - grid
            found += [float(x) for x in grid[values == 0]]
            for i in np.flatnonzero(values[:-1] * values[1:] < 0):
                found.append(float(brentq(excess, grid[i], grid[i + 1], xtol=1e-15, rtol=1e-15)))
        return sorted(found)


def check_gain(gain: Gain) -> None:
    """Refuse a gain that is not what :class:`Gain` asks for, on 1000 points of [−10, 10].

    Raises:
        SettingError: if f(0) ≠ 0, |f| > 1 somewhere, or f′ is not the derivative of f.
    """
    name = type(gain).__name__
    x = torch.linspace(-10, 10, 1000, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        rates = gain(x)
        (slope,) = torch.autograd.grad(rates.sum(), x)
    require(float(gain(torch.zeros(1, dtype=torch.float64))) == 0, "gain", name, "must be 0 at 0")
    require(float(rates.detach().abs().max()) <= 1, "gain", name, "must lie in [−1, 1]")
    fits = torch.allclose(gain.derivative(x.detach()), slope, rtol=1e-6, atol=1e-9)
    require(fits, "gain", name, "derivative() must be the derivative of the gain itself")


class HillGain(Gain):
    """f(x) = x² / (c + x²) (Chicchi et al., 2024), with f′(x) = 2cx / (c + x²)².

    Args:
        c: the square of the current at half the full rate, above 0.

    Raises:
        SettingError: if ``c`` is not above 0.

    Example:
        >>> HillGain(c=0.25).alphabet(1.25)
        [0.0, 0.25, 1.0]
    """

    def __init__(self, c: float = 0.1) -> None:
        require(c > 0, "c", c, "must be above 0")
        self.c = c

    def __call__(self, x: Tensor) -> Tensor:
        squared = x * x
        return squared / (squared + self.c)

    def derivative(self, x: Tensor) -> Tensor:
        denominator = x.square().add_(self.c).square_()
        return torch.mul(x, 2 * self.c).div_(denominator)

    def pointwise(self) -> Pointwise:
        return Hill(self.c)

    def alphabet(self, slope: float) -> list[float]:
        """0, x₋ and x₊ = (s ± √(s² − 4c)) / 2.

        Raises:
            SettingError: if c ≥ s²/4, where 0 is the only one.
        """
        largest = slope**2 / 4
        require(
            self.c < largest,
            "c",
            self.c,
            f"must be below (βλ)²/4 = {largest:.6g}, or 0 is the only fixed point of a node",
        )
        root = math.sqrt(slope**2 - 4 * self.c)
        upper = (slope + root) / 2
        return [0.0, self.c / upper, upper]  # x₋ x₊ = c, without the cancellation of s − √…
