"""Bounds of sup|Y′|, the gain of a neuron of nmODE."""

from __future__ import annotations

import math

from lightning_attractors.errors import require


def published_gain(decay: float) -> float:
    """1/(λ − 1), for all times."""
    require(decay > 1, "decay", decay, "must be above 1 for the published bound")
    return 1 / (decay - 1)


def finite_time_gain(decay: float, time: float) -> float:
    """(1 − e^(−(λ−1)t̄))/(λ − 1), or t̄ at λ = 1."""
    return time if decay == 1 else -math.expm1(-(decay - 1) * time) / (decay - 1)
