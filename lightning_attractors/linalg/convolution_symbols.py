"""The symbol of a convolution: the matrix Â(θ) by which it acts on the plane wave e^{i(r θ₁ + s θ₂)}."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor


class Frequencies(NamedTuple):
    """Equispaced frequencies (2πj + twist) / points along one axis, j = 0 … points − 1.

    Args:
        points: how many.
        twist: 0 or π: with both, −θ belongs to the grid as well as θ.
    """

    points: int
    twist: float = 0.0

    def all(self) -> Tensor:
        """Shape (points,), float64."""
        steps = torch.arange(self.points, dtype=torch.float64)
        return (2 * math.pi * steps + self.twist) / self.points

    def half(self) -> Tensor:
        """Those in [0, π], float64."""
        last = self.points // 2 if self.twist == 0 else (self.points - 1) // 2
        return self.all()[: last + 1]


Grid = tuple[Frequencies, Frequencies]


def waves(frequencies: Tensor, kernel_size: int) -> Tensor:
    """e^{i(a − p)θ} for each frequency and each offset a of a kernel, shape (F, k), complex128."""
    offsets = torch.arange(kernel_size, dtype=torch.float64) - kernel_size // 2
    return torch.exp(1j * frequencies[:, None] * offsets)


def symbols(weight: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Â(θ) = Σ_ab K_ab e^{i((a−p)θ₁ + (b−p)θ₂)} at all pairs of the given frequencies.

    Args:
        weight: K, shape (O, I, k, k), float32 or float64.
        first: θ₁, shape (F₁,), float64.
        second: θ₂, shape (F₂,), float64.

    Returns:
        Shape (F₁·F₂, O, I), complex, in the weight's precision and on its device.
    """
    return _transformed(weight, _plane(first, second, weight.shape[-1]))


def half_symbols(weight: Tensor, grid: Grid) -> Tensor:
    """The same at the frequencies of a grid, without those that have the conjugate one of another."""
    kind = weight.dtype.to_complex(), weight.device
    return _transformed(weight, _half_plane(grid, weight.shape[-1], *kind))


@functools.lru_cache(maxsize=64)
def _half_plane(grid: Grid, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # kept where it is used: a copy to the device would be waited for in every step of an optimiser
    return _plane(grid[0].half(), grid[1].all(), size).to(device, dtype)


def _plane(first: Tensor, second: Tensor, size: int) -> Tensor:
    plane = torch.einsum("fa,gb->fgab", waves(first, size), waves(second, size))
    return plane.flatten(0, 1).flatten(1)


def _transformed(weight: Tensor, plane: Tensor) -> Tensor:
    outputs, inputs, size, _ = weight.shape
    taps = weight.permute(2, 3, 0, 1).reshape(size * size, outputs * inputs)
    taps = taps.to(weight.dtype.to_complex())
    return (plane.to(taps) @ taps).view(-1, outputs, inputs)
