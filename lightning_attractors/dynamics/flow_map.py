"""The flow map of nmODE: the whole integration as one periodic function.

A neuron ẏ = −λy + sin²(y + γ), y(0) = 0, is coupled to no other one, so that y(t̄) = Y(γ) is a scalar function
of its input. Y has period π, as sin² has, and its Fourier coefficients decay exponentially.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from lightning_attractors.errors import require

_TOLERANCE = 1e-13


def flow_samples(decay: float, time: float, count: int) -> np.ndarray:
    """Y(kπ/count) for k = 0 … count − 1, in float64."""
    gamma = np.arange(count) * np.pi / count

    def field(_: float, y: np.ndarray) -> np.ndarray:
        return -decay * y + np.sin(y + gamma) ** 2

    start = np.zeros(count)
    solution = solve_ivp(field, (0, time), start, method="DOP853", rtol=_TOLERANCE, atol=_TOLERANCE)
    end: np.ndarray = solution.y[:, -1]
    return end


class FlowMap(nn.Module):
    """Y(γ) = y(t̄) of ẏ = −λy + sin²(y + γ), y(0) = 0, without a solver (Luo, He and Yi, 2024).

    Args:
        decay: λ, above 0.
        time: t̄, above 0.

    Attributes:
        gain: sup|Y′|, never less than the true one.
        lowest: a lower bound of Y.
        highest: an upper bound of Y.

    Raises:
        SettingError: if a setting is out of range.
    """

    def __init__(self, decay: float = 3.0, time: float = 1.0) -> None:
        super().__init__()
        require(0 < decay < math.inf, "decay", decay, "must be finite and above 0")
        require(0 < time < math.inf, "time", time, "must be finite and above 0")
        self.decay = decay
        self.time = time
        coefficients = np.fft.rfft(flow_samples(decay, time, 1024)) / 1024
        kept = max(2, int(np.flatnonzero(np.abs(coefficients) > 1e-14)[-1]) + 1)
        self.register_buffer("coefficients", torch.from_numpy(coefficients[:kept]), persistent=False)
        fine = torch.arange(8192, dtype=torch.float64) * math.pi / 8192
        values, slopes = self._evaluate(fine, 0), self._evaluate(fine, 1)
        self.gain = float(slopes.abs().max()) * (1 + 1e-6)
        self.lowest, self.highest = float(values.min()) - 1e-9, float(values.max()) + 1e-9
        self.turning_points = (float(fine[values.argmin()]), float(fine[values.argmax()]))

    def _evaluate(self, gamma: Tensor, order: int) -> Tensor:
        harmonics = torch.arange(len(self.coefficients), dtype=torch.float64)
        weights = self.coefficients * (2j * harmonics) ** order
        weights[1:] *= 2
        return sum(
            c.real * (2 * k * gamma).cos() - c.imag * (2 * k * gamma).sin() for k, c in enumerate(weights)
        )

    def forward(self, gamma: Tensor) -> Tensor:
        """Y(γ), elementwise."""
        return self._evaluate(gamma, 0)

    def derivative(self, gamma: Tensor) -> Tensor:
        """Y′(γ), elementwise."""
        return self._evaluate(gamma, 1)

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest interval that holds Y of [lower, upper], elementwise; differentiable in both ends."""
        ends = self(lower), self(upper)
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        bottom, top = self.turning_points
        # the first turning point at or after the lower end
        nearest_bottom = bottom + math.pi * torch.ceil((lower - bottom) / math.pi)
        nearest_top = top + math.pi * torch.ceil((lower - top) / math.pi)
        low = torch.where(nearest_bottom <= upper, torch.full_like(low, self.lowest), low)
        high = torch.where(nearest_top <= upper, torch.full_like(high, self.highest), high)
        return low, high
