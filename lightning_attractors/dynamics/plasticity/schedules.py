"""How the learning rate of filters falls over their epochs."""

from __future__ import annotations

import math
from typing import Literal, get_args

from lightning_attractors.errors import require

ScheduleName = Literal["linear", "exponential", "cosine", "step"]


def learning_rate(
    schedule: ScheduleName,
    epoch: int,
    epochs: int,
    initial: float = 1.0,
    tau: float = 3.25,
    gamma: float = 0.1,
    step: int = 10,
) -> float:
    """The learning rate of one epoch, η(t) with t counted from 0 and T epochs.

    ``linear`` η₀ (T − t)/T; ``exponential`` η₀ e^(−τt/T); ``cosine`` (η₀/2)(1 + cos πt/T); ``step``
    η₀ γ^⌊t/s⌋.

    Args:
        schedule: its name.
        epoch: t, from 0 to T.
        epochs: T, at least 1.
        initial: η₀; 1 gives the factor that a ``LambdaLR`` wants.
        tau: τ, how many times the rate falls by e over the T epochs; at least 0.
        gamma: γ, the factor of a step, in (0, 1].
        step: s, epochs between steps, at least 1.

    Raises:
        SettingError: if a setting is out of range.
    """
    names = get_args(ScheduleName)
    require(schedule in names, "schedule", schedule, f"must be one of {names}")
    require(epochs >= 1, "epochs", epochs, "must be at least 1")
    require(0 <= tau < math.inf, "tau", tau, "must be finite and at least 0")
    require(0 < gamma <= 1, "gamma", gamma, "must be above 0 and at most 1")
    require(step >= 1, "step", step, "must be at least 1")
    done = epoch / epochs
    factors = {
        "linear": 1 - done,
        "exponential": math.exp(-tau * done),
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "step": gamma ** (epoch // step),
    }
    return initial * factors[schedule]
