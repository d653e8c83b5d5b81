"""Fixed-step integration: what is solved, how a step is taken and how far it goes combine freely."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

_UNROLLED = 4  # steps that a graph holds one by one: a loop takes seconds to trace, and each of these one

VectorField = Callable[[Tensor], Tensor]
Step = Callable[[VectorField, Tensor, float], Tensor]
IntegratorName = Literal["euler", "heun", "rk4"]


def euler(field: VectorField, x: Tensor, dt: float) -> Tensor:
    """One explicit Euler step, x + Δt F(x)."""
    return x + dt * field(x)


def heun(field: VectorField, x: Tensor, dt: float) -> Tensor:
    """One step of Heun's method, the explicit trapezoidal rule, of second order."""
    k1 = field(x)
    k2 = field(x + dt * k1)
    return x + dt / 2 * (k1 + k2)


def rk4(field: VectorField, x: Tensor, dt: float) -> Tensor:
    """One step of the classical Runge-Kutta method of fourth order."""
    k1 = field(x)
    k2 = field(x + 0.5 * dt * k1)
    k3 = field(x + 0.5 * dt * k2)
    k4 = field(x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def euler_maruyama(noise: Callable[[Tensor], Tensor]) -> Step:
    """The Euler step of a stochastic equation, x + Δt F(x) + √Δt g(x), with g drawn anew at every call."""

    def step(field: VectorField, x: Tensor, dt: float) -> Tensor:
        return euler(field, x, dt) + math.sqrt(dt) * noise(x)

    return step


# Read-only: what is certified of a step is known of these.
STEPS: Mapping[str, Step] = MappingProxyType({"euler": euler, "heun": heun, "rk4": rk4})


def clipped(step: Step, bound: float) -> Step:
    """The same step, with every component of the new state clamped to [−bound, bound]."""

    def clipped_step(field: VectorField, x: Tensor, dt: float) -> Tensor:
        return step(field, x, dt).clamp(-bound, bound)

    return clipped_step


def reverse(field: VectorField) -> VectorField:
    """The field of the same flow with time running backwards, ẋ = −F(x)."""
    return lambda x: -field(x)


def states(field: VectorField, x: Tensor, dt: float, steps: int, step: Step = euler) -> Iterator[Tensor]:
    """The states from x on, one by one: ``steps + 1`` tensors of x's shape."""
    yield x
    for _ in range(steps):
        x = step(field, x, dt)
        yield x


def trajectory(field: VectorField, x: Tensor, dt: float, steps: int, step: Step = euler) -> Tensor:
    """All states from x on, shape (steps + 1, ...)."""
    return torch.stack(list(states(field, x, dt, steps, step)))


def integrate(field: VectorField, x: Tensor, dt: float, steps: int, step: Step = euler) -> Tensor:
    """State after ``steps`` steps of length ``dt`` from x, same shape as x."""
    if torch.compiler.is_exporting():
        return loop(lambda state: step(field, state, dt), x, steps)
    for _ in range(steps):
        x = step(field, x, dt)
    return x


def loop(once: Callable[[Tensor], Tensor], x: Tensor, count: int) -> Tensor:
    """``once`` of x so many times over, in a graph that is exported: beyond a few, by a loop in it.

    Args:
        once: gives a new tensor of the shape of x, and writes to none from outside.
        x: the first one.
        count: at least 1.
    """
    if count <= _UNROLLED:
        for _ in range(count):
            x = once(x)
        return x
    start = torch.zeros((), dtype=torch.int64, device=x.device)
    last: Tensor = torch.while_loop(lambda n, _: n < count, lambda n, s: (n + 1, once(s)), (start, x))[1]
    return last
