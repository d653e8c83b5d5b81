"""The flow map of nmODE: the whole integration as one periodic function.

A neuron ẏ = −λy + sin²(y + γ), y(0) = 0, is coupled to no other one, so that y(t̄) = Y(γ) is a scalar function
of its input. Y has period π, as sin² has, and its Fourier coefficients decay exponentially. Y ≥ 0, and 0 only
at the multiples of π, where y ≡ 0; between two of them it rises to one maximum and falls again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.dynamics.nmode.decay import Decaying
from lightning_attractors.dynamics.nmode.flow_series import (
    Coefficients,
    FlowSeries,
    Series,
    differentiate,
    solve_series,
    too_steep,
)
from lightning_attractors.dynamics.nmode.flow_table import LARGEST_CURVATURE, FlowTable
from lightning_attractors.errors import require

_SLACK = 1e-11  # the largest error of Y in float64


@dataclass(frozen=True)
class _Solved:
    """A solved flow and its tables: Y and, where λ is trained, ∂Y/∂λ."""

    decay: float
    series: FlowSeries
    tables: tuple[FlowTable, ...]

    @property
    def coefficients(self) -> tuple[Coefficients, ...]:
        values, sensitivity = self.series.values, self.series.sensitivity
        return (values,) if sensitivity is None else (values, sensitivity)


def _solve(decay: float, time: float, sensitive: bool) -> _Solved:
    series = solve_series(decay, time, sensitive, LARGEST_CURVATURE)
    tables = [FlowTable(series.values, series.curvatures, max(1.0, series.gain))]
    if not tables[0].is_exact:
        raise too_steep(decay, time)
    if series.sensitivity is not None:
        size, first, second, third = (
            float(abs(differentiate(series.sensitivity, order)).sum()) for order in range(4)
        )
        tables.append(FlowTable(series.sensitivity, (second / max(1.0, size), third), max(1.0, first)))
    return _Solved(decay, series, tuple(tables))


class FlowMap(Decaying):
    """Y(γ) = y(t̄) of ẏ = −λy + sin²(y + γ), y(0) = 0, without a solver (Luo, He and Yi, 2024).

    Float64 is evaluated by the Fourier series, to 1e-11. Float32, and whatever is lower, also under autocast,
    is evaluated and returned in float32, by a table, to 1e-6 in Y and 1e-5 max(1, sup|Y′|) in Y′. Beyond
    |γ| = 100 the rounding of γ itself is the larger error. A nan or an infinity gives nan. Float32 has
    derivatives up to the fourth, float64 has all of them.

    A trained λ is the parameter ``log_decay``, and its tables follow it: each step solves and tabulates anew,
    in tens of milliseconds (20 at λ = 3, t̄ = 1; 90 at 1.1, 5; 300 at 1.05, 20). ∂²Y/∂λ² counts as 0.

    Args:
        decay: λ, above 0; at or below 1 with a warning.
        time: t̄, above 0.
        trainable_decay: whether λ is trained.

    Raises:
        SettingError: if a setting is out of range, or the flow too steep to be tabulated to that accuracy:
            λ near 1 or below it, and a long t̄, as at (0.5, 20), (1, 50) and (1.01, 100). From λ = 1.1 every
            t̄ is valid.
        NonFiniteError: in use, if a trained λ has diverged.

    Example:
        >>> flow = FlowMap(decay=3.0, time=1.0)
        >>> flow(torch.tensor([1.0, 2.0]))
        tensor([0.2834, 0.2094])
        >>> round(flow.gain, 4)
        0.431
    """

    def __init__(self, decay: float = 3.0, time: float = 1.0, trainable_decay: bool = False) -> None:
        super().__init__(decay, trainable_decay)
        require(0 < time < math.inf, "time", time, "must be finite and above 0")
        self.time = float(time)
        self._solved = _solve(self.decay, self.time, trainable_decay)

    @property
    def gain(self) -> float:
        """sup|Y′|: at most 2e-6 relative above the true one, and never below."""
        return self._current().series.gain

    @property
    def lowest(self) -> float:
        """A lower bound of Y, evaluation in float64 included."""
        return -_SLACK

    @property
    def highest(self) -> float:
        """An upper bound of Y, evaluation in float64 included."""
        return self._current().series.highest + _SLACK

    @property
    def turning_points(self) -> tuple[float, float]:
        """Where in [0, π) the minimum and the maximum are."""
        return 0.0, self._current().series.top

    def forward(self, gamma: Tensor) -> Tensor:
        """Y(γ), elementwise."""
        return self._evaluate(gamma, 0)

    def derivative(self, gamma: Tensor) -> Tensor:
        """Y′(γ), elementwise."""
        return self._evaluate(gamma, 1)

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest interval that holds Y of [lower, upper], elementwise; differentiable in both ends.

        In float64 it is widened by more than the error of an evaluation, so that it is never too small.

        Args:
            lower: lower ends.
            upper: upper ends, same shape; lower ≤ upper is for the caller to see to.
        """
        ends = self(lower), self(upper)
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        top = self._current().series.top
        # A turning point missed by a rounding error lies so close to an end that Y there is the same.
        highest = self(low.detach().new_full((), top))
        low = torch.where(_contains(lower, upper, 0.0), torch.zeros_like(low), low)
        high = torch.where(_contains(lower, upper, top), highest, high)
        if low.dtype == torch.float64:
            return low - 2 * _SLACK, high + 2 * _SLACK
        return low, high

    def extra_repr(self) -> str:
        return f"decay={self.decay:g}, time={self.time:g}"

    def _evaluate(self, gamma: Tensor, order: int) -> Tensor:
        solved = self._current()
        if gamma.dtype == torch.float64:
            parts = [Series.apply(gamma, coefficients, order) for coefficients in solved.coefficients]
        else:
            gamma = gamma.float()
            parts = [table(gamma, order) for table in solved.tables]
        if self.log_decay is None:
            return parts[0]
        decay = self.log_decay.to(parts[0].dtype).exp()
        return torch.addcmul(parts[0], decay - decay.detach(), parts[1])  # adds 0, but not to the gradient

    def _current(self) -> _Solved:
        if self.log_decay is not None:
            self._follow()
        return self._solved

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _follow(self) -> None:
        decay = self.checked_decay()
        if decay != self._solved.decay:
            self._solved = _solve(decay, self.time, True)


def _contains(lower: Tensor, upper: Tensor, point: float) -> Tensor:
    """Whether [lower, upper] holds ``point`` or a copy of it some periods away."""
    with torch.no_grad():
        first = ((lower - point) / math.pi).ceil_()
        return first <= (upper - point) / math.pi
