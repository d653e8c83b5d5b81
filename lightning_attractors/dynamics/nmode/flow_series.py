"""The flow of nmODE in float64: Fourier series of Y and of ∂Y/∂λ, and what they say of Y as a whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from lightning_attractors.errors import SettingError

_TOLERANCE = 1e-13
_NOISE = 1e-15  # below this, or below it relative to the largest, a coefficient is rounding
_FEWEST_NODES, _MOST_NODES = 64, 4096
# For λ > 1 two states come closer by e^(−(λ−1)t): after 45/(λ − 1), Y is stationary to rounding.
# What takes longer than the second figure to settle, λ < 1.045, has become too steep by then.
_SETTLED, _LONGEST = 45.0, 1000.0
_PIECE = 16384  # elements of a series evaluated at a time, so that powers of e^(2iγ) stay in the cache

Coefficients = NDArray[np.complex128]


@dataclass(frozen=True)
class FlowSeries:
    """Y(γ) = Re Σ c_k e^(2ikγ) for one λ and t̄.

    Attributes:
        values: c_k of Y, k = 0 … K.
        sensitivity: c_k of ∂Y/∂λ, if it was asked for.
        gain: sup|Y′|, at most 2e-6 relative above the true one, and never below.
        highest: max Y.
        top: where it is, in (0, π).
        curvatures: sup|Y″| and sup|Y‴|, on a grid.
    """

    values: Coefficients
    sensitivity: Coefficients | None
    gain: float
    highest: float
    top: float
    curvatures: tuple[float, float]


def solve_series(
    decay: float, time: float, sensitive: bool = False, largest_curvature: float = math.inf
) -> FlowSeries:
    """Integrate one period of the flow, with as many nodes as its Fourier series needs.

    Args:
        decay: λ.
        time: t̄.
        sensitive: whether ∂Y/∂λ is wanted too.
        largest_curvature: the sup|Y″| beyond which the flow is refused, as soon as that shows.

    Raises:
        SettingError: if the flow is steeper than that, or too steep for a series of 1,500 modes; or if the
            solver failed.
    """
    needed = min(time, _SETTLED / (decay - 1)) if decay > 1 else time
    if needed > _LONGEST:
        raise too_steep(decay, time)
    nodes = _FEWEST_NODES
    while nodes <= _MOST_NODES:
        samples = _samples(decay, needed, nodes, sensitive)
        if _least_curvature(samples[0]) > largest_curvature:
            break
        spectra = np.fft.rfft(samples) / nodes
        if np.abs(spectra[:, -nodes // 8 :]).max() < 10 * _NOISE * max(1.0, np.abs(spectra).max()):
            return _describe(spectra)
        nodes *= 2
    raise too_steep(decay, time)


def too_steep(decay: float, time: float) -> SettingError:
    """The error that says so."""
    return SettingError("time", time, f"too long for λ = {decay:g}: the flow is too steep to be tabulated")


def differentiate(coefficients: Coefficients, order: int) -> Coefficients:
    """Coefficients of the derivative of that order."""
    return coefficients * (2j * np.arange(len(coefficients))) ** order


def on_period(coefficients: Coefficients, nodes: int) -> NDArray[np.float64]:
    """The series at jπ/``nodes``, j = 0 … nodes − 1."""
    padded = np.zeros(nodes // 2 + 1, dtype=np.complex128)
    padded[: len(coefficients)] = coefficients
    padded[1:] /= 2
    return np.fft.irfft(padded, nodes) * nodes


def on_grid(coefficients: Coefficients, start: float, spacing: float, nodes: int) -> NDArray[np.float64]:
    """The series at start + j ``spacing``, j = 0 … ``nodes`` − 1."""
    # One matrix product of coarse and fine phases, instead of a sum for every node.
    width = math.isqrt(nodes) + 1
    phases = 2j * np.arange(len(coefficients))
    coarse = np.exp(np.outer(start + width * spacing * np.arange(width), phases)) * coefficients
    fine = np.exp(np.outer(phases, spacing * np.arange(width)))
    rows = coarse.real @ fine.real - coarse.imag @ fine.imag
    return rows.ravel()[:nodes]


class Series(torch.autograd.Function):
    """A derivative of a series, elementwise in float64; differentiable any number of times."""

    @staticmethod
    def forward(gamma: Tensor, coefficients: Coefficients, order: int) -> Tensor:
        weights = differentiate(coefficients, order).tolist()
        pieces = [_horner(piece, weights) for piece in gamma.reshape(-1).split(_PIECE)]
        return torch.cat(pieces).view(gamma.shape)

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Coefficients, int], output: Tensor
    ) -> None:
        gamma, *ctx.rest = inputs  # type: ignore[attr-defined]
        ctx.save_for_backward(gamma)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (gamma,) = ctx.saved_tensors  # type: ignore[attr-defined]
        coefficients, order = ctx.rest  # type: ignore[attr-defined]
        return gradient * Series.apply(gamma, coefficients, order + 1), None, None

    @staticmethod
    def vmap(
        info: object, in_dims: tuple[int, None, None], gamma: Tensor, coefficients: Coefficients, order: int
    ) -> tuple[Tensor, int]:
        return Series.apply(gamma, coefficients, order), in_dims[0]


def _horner(gamma: Tensor, weights: list[complex]) -> Tensor:
    turn = torch.polar(torch.ones_like(gamma), 2 * gamma)
    total = torch.full_like(turn, weights[-1])
    for weight in reversed(weights[:-1]):
        total.mul_(turn).add_(weight)
    return torch.where(gamma.isfinite(), total.real, torch.nan)


def _samples(decay: float, time: float, nodes: int, sensitive: bool) -> NDArray[np.float64]:
    """Y, and ∂Y/∂λ if asked for, at kπ/nodes: shape (1 or 2, nodes)."""
    gamma = np.arange(nodes) * np.pi / nodes
    rows = 2 if sensitive else 1

    def field(_: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
        y = state.reshape(rows, nodes)
        rate = -decay * y
        rate[0] += np.sin(y[0] + gamma) ** 2
        if sensitive:
            rate[1] += np.sin(2 * (y[0] + gamma)) * y[1] - y[0]
        return rate.ravel()

    start = np.zeros(rows * nodes)
    solution = solve_ivp(field, (0, time), start, method="DOP853", rtol=_TOLERANCE, atol=_TOLERANCE)
    if not solution.success:
        raise SettingError("time", time, f"the flow at λ = {decay:g} could not be solved: {solution.message}")
    return solution.y[:, -1].reshape(rows, nodes)


def _least_curvature(y: NDArray[np.float64]) -> float:
    """A lower bound of sup|Y″| from Y over one period: a second difference is a mean of Y″."""
    second = np.roll(y, 1) - 2 * y + np.roll(y, -1)
    return float(np.abs(second).max()) * (len(y) / math.pi) ** 2


def _describe(spectra: Coefficients) -> FlowSeries:
    sizes = np.abs(spectra).max(axis=0)
    kept = max(2, int(np.flatnonzero(sizes > _NOISE * min(1.0, sizes.max()))[-1]) + 1)
    spectra = spectra[:, :kept].copy()
    spectra[:, 1:] *= 2
    values = spectra[0]
    # Between two nodes |Y′| exceeds both by at most (spacing/2)² sup|Y‴| / 2.
    third = float(np.abs(differentiate(values, 3)).sum())
    steepest = float(np.abs(on_period(differentiate(values, 1), 8 * kept)).max())
    wanted = math.pi * math.sqrt(third / (8e-6 * steepest))
    nodes = 2 ** math.ceil(math.log2(max(wanted, 4 * kept)))
    y, slope, second, bend = (on_period(differentiate(values, order), nodes) for order in range(4))
    between = (math.pi / nodes) ** 2 / 8 * third
    top = _turning_point(values, math.pi * int(y.argmax()) / nodes)
    return FlowSeries(
        values=values,
        sensitivity=spectra[1] if len(spectra) > 1 else None,
        gain=(float(np.abs(slope).max()) + between) * (1 + 1e-10),
        highest=float(on_grid(values, top, 0.0, 1)[0]),
        top=top,
        curvatures=(float(np.abs(second).max()), float(np.abs(bend).max())),
    )


def _turning_point(values: Coefficients, near: float) -> float:
    """The zero of Y′, by Newton's method from a node of a fine grid."""
    for _ in range(3):
        slope, second = (float(on_grid(differentiate(values, order), near, 0.0, 1)[0]) for order in (1, 2))
        near -= slope / second
    return near
