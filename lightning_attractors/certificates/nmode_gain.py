"""How much an nmODE neuron can amplify a change of its input, whatever the weights.

The sensitivity z = ∂y/∂γ of ẏ = −λy + sin²(y + γ), y(0) = 0, obeys ż = (s − λ) z + s, z(0) = 0, with
s = sin 2(y + γ). Since |s| ≤ 1, |z| grows no faster than the solution of ẇ = −(λ − 1) w + 1, w(0) = 0. The
bounds here are that solution; the exact sup|Y′| is
:attr:`~lightning_attractors.dynamics.nmode.FlowMap.gain`.

Certificates by the exact gain, and intervals, need no λ > 1 to be sound: neither uses 1/(λ − 1). Of the
bounds only ``published_gain`` refuses λ ≤ 1, where its theorem says nothing.
"""

from __future__ import annotations

import math

from lightning_attractors.errors import require


def published_gain(decay: float) -> float:
    """1/(λ − 1), which bounds the gain at all times (Luo, He and Yi, 2024).

    Their theorem: for γ = Wx + b, ‖x − x̄‖ ≤ δ implies ‖y(t) − ȳ(t)‖ ≤ ε = τδ/(λ − 1) for all t ≥ 0, in the
    maximum norm, with τ = max_i Σ_j |w_ij|.

    Args:
        decay: λ, above 1.

    Raises:
        SettingError: if ``decay`` is not above 1, where the theorem says nothing.

    Example:
        >>> published_gain(3.0)
        0.5
    """
    require(1 < decay < math.inf, "decay", decay, "must be above 1 and finite, or the theorem says nothing")
    return 1 / (decay - 1)


def finite_time_gain(decay: float, time: float) -> float:
    """(1 − e^(−(λ−1)t̄))/(λ − 1), or t̄ at λ = 1: the same bound for the time t̄ that is really integrated.

    It replaces 1/(λ − 1) in the theorem of :func:`published_gain`, is below it at every t̄ and tends to it as
    t̄ → ∞. It is sharp in that it solves the comparison equation exactly: nothing that knows only |s| ≤ 1 can
    be lower. It holds for λ ≤ 1 too.

    Args:
        decay: λ, above 0.
        time: t̄, above 0.

    Raises:
        SettingError: if a setting is out of range.

    Example:
        >>> round(finite_time_gain(3.0, 1.0), 4)
        0.4323
    """
    require(0 < decay < math.inf, "decay", decay, "must be finite and above 0")
    require(0 < time < math.inf, "time", time, "must be finite and above 0")
    rate = decay - 1
    return time if rate == 0 else -math.expm1(-rate * time) / rate
