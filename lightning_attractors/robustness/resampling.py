"""How much the inflection point of a fitted curve varies over other images: fits of resampled images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# The ends of log ν stand for the limits 0, the Gompertz function, and infinity.
LOG_NU = math.log(1e4)
_POINTS = 400
_ITERATIONS = 12


def decline(x: Floats, R: Floats | float, rate: Floats | float, log_nu: Floats | float) -> Floats:
    """1 − (1 + ν e^(−rate (x − R)))^(−1/ν), without overflow."""
    return -np.expm1(-np.logaddexp(0, log_nu - rate * (x - R)) / np.exp(log_nu))


def resampled_inflections(
    x: Floats, radii: Floats, solution: tuple[float, float, float], resamples: int, seed: int
) -> Floats:
    """The inflection points of fits to images drawn anew from the given ones, with replacement.

    Every fit starts from that of all images, and all go on together; they take 400 of the curve's points,
    evenly by rank, which changes R by less than it varies.

    Args:
        x: strengths of the curve's points, ascending, shape (P,).
        radii: of all N images in the same unit, infinite where the attack failed, shape (N,).
        solution: (R, rate, log ν) of the fit to all images.
        resamples: how many times N images are drawn.
        seed: of the draws, at least 0.

    Returns:
        R, shape (resamples,), within [0, max x].
    """
    x = x[np.unique(np.linspace(0, len(x) - 1, min(_POINTS, len(x))).round().astype(np.int64))]
    accuracies = _resampled_accuracies(x, radii, resamples, seed)
    found = np.tile(np.asarray(solution), (resamples, 1))
    lower, upper = np.array([0, 1e-6 * solution[1], -LOG_NU]), np.array([x[-1], np.inf, LOG_NU])
    values, slopes = _decline_slopes(x, found)
    least = np.square(accuracies - values).sum(axis=1)
    damping = np.full(resamples, 1e-3)
    # Levenberg's and Marquardt's method, a damped Gauss-Newton step per fit and iteration.
    for _ in range(_ITERATIONS):
        normal = np.einsum("bpi,bpj->bij", slopes, slopes, optimize=True)
        gradient = np.einsum("bpi,bp->bi", slopes, accuracies - values, optimize=True)
        sizes = np.einsum("bii->bi", normal)
        floor = 1e-12 * sizes.max(axis=1, keepdims=True) + 1e-300
        step = np.linalg.solve(
            normal + (damping[:, None] * sizes + floor)[:, :, None] * np.eye(3), gradient[..., None]
        )
        tried = np.clip(found + step[..., 0], lower, upper)
        tried_values, tried_slopes = _decline_slopes(x, tried)
        error = np.square(accuracies - tried_values).sum(axis=1)
        better = error <= least
        found[better], values[better], slopes[better] = (
            tried[better],
            tried_values[better],
            tried_slopes[better],
        )
        least = np.where(better, error, least)
        damping = np.where(better, damping / 10, damping * 10)
    return found[:, 0]


def _resampled_accuracies(x: Floats, radii: Floats, resamples: int, seed: int) -> Floats:
    """A(x) of every resample, the share of its images with a radius above x, shape (resamples, P)."""
    count, points = len(radii), len(x)
    # Of every image the first point that its radius does not exceed, P if none: from there on it has fallen.
    fallen_at = np.searchsorted(x, radii, side="left")
    drawn = fallen_at[np.random.default_rng(seed).integers(count, size=(resamples, count))]
    drawn += (points + 1) * np.arange(resamples)[:, None]
    falls = np.bincount(drawn.ravel(), minlength=resamples * (points + 1)).reshape(resamples, points + 1)
    shares: Floats = 1 - falls[:, :points].cumsum(axis=1) / count
    return shares


def _decline_slopes(x: Floats, parameters: Floats) -> tuple[Floats, Floats]:
    """The values (B, P) of B functions with parameters (B, 3), and their slopes in these (B, P, 3)."""
    R, rate, log_nu = parameters[:, :1], parameters[:, 1:2], parameters[:, 2:]
    nu = np.exp(log_nu)
    inner = log_nu - rate * (x - R)
    logarithm = np.logaddexp(0, inner)
    remaining = np.exp(-logarithm / nu)
    share = np.exp(inner - logarithm)
    slope = remaining * share / nu
    slopes = np.stack([slope * rate, -slope * (x - R), remaining * (share - logarithm) / nu], axis=2)
    return 1 - remaining, slopes
