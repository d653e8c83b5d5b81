r"""Traps: around an attractor a ball that every state comes back to, nearer than before.

The tube of the ball ‖x − x*‖₂ ≤ ρ is followed for m steps. If it ends in the ball of radius θρ, θ < 1, then no
state of the ball ever leaves what the tube passes in these m steps. Every term in the bound of a deviation is
of first or higher order in ρ, but for what float32 rounds and how far x* is from being an equilibrium in it:
hence ‖x⁽ᵐ⁾ − x*‖ ≤ θ ‖x − x*‖ + e for every x of the ball, and states end within e/(1 − θ) of x*, for ever.

Compared with an ellipsoid that one step maps into itself, in the metric of a Lyapunov equation, nothing has to
be bought with the condition number of that metric: what a far from normal coupling does to a deviation before
it decays is in the exact products of m Jacobians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_attractors.certificates.flights import Flight
from lightning_attractors.certificates.tubes import SLACK, Spread, Tube, ball

_LARGEST_RATE = 0.99
_ENOUGH = 0.5
_HALVINGS = 8


@dataclass(frozen=True)
class Traps:
    """One ball ‖x − x*‖₂ ≤ radius for each of K attractors.

    Attributes:
        attractors: x*, shape (K, N).
        radius: ρ, shape (K,), 0 where nothing was proved.
        steps: m, shape (K,).
        rate: θ, shape (K,).
        precision: how near, in L2, all states of a trap come to its attractor in the end, shape (K,).
        decided: whether all states that have once been in the trap have the attractor's class, shape (K,).
    """

    attractors: Tensor
    radius: Tensor
    steps: Tensor
    rate: Tensor
    precision: Tensor
    decided: Tensor

    def hold(self, tube: Tube, labels: Tensor) -> Tensor:
        """Whether a tube lies within the traps of the labels' attractors, shape (B,)."""
        near = torch.linalg.vector_norm(tube.center - self.attractors[labels], dim=1) < self.radius[labels]
        if not bool(near.any()):
            return near
        return distance(tube, self.attractors[labels]) <= self.radius[labels]


def distance(tube: Tube, origin: Tensor) -> Tensor:
    """The largest ‖x − origin‖₂ over a tube, shape (B,)."""
    away = (tube.center - origin).abs()
    by_nodes = torch.linalg.vector_norm(away + tube.reach(), dim=1)
    length = torch.linalg.vector_norm(away, dim=1) + Spread.of(tube).length
    return torch.minimum(by_nodes, length) * SLACK


def find_traps(flight: Flight, most_steps: int = 100) -> Traps:
    """The largest ball around each attractor that bisection proves to be a trap, within so many steps."""
    attractors = flight.attractors
    low = torch.zeros(len(attractors)).to(attractors)
    closest = torch.nn.functional.pdist(attractors).min() / 2
    high = torch.full_like(low, float(closest))
    nothing = torch.zeros_like(low)
    found = _Return(nothing + torch.inf, nothing.long(), nothing + torch.inf, nothing.bool())
    for halving in range(_HALVINGS):
        # geometric, until something holds: traps may be far smaller than the distance of the attractors
        middle = torch.where(low > 0, (low + high) / 2, high / 4) if halving else high
        tried = _returns(flight, attractors, middle, most_steps)
        held = tried.rate < _LARGEST_RATE
        low, high = torch.where(held, middle, low), torch.where(held, high, middle)
        found = _Return(*(torch.where(held, new, old) for new, old in zip(tried, found, strict=True)))
    precision = found.error / (1 - found.rate)
    return Traps(attractors, low, found.steps, found.rate, precision, found.decided)


class _Return(NamedTuple):
    """θ, m and e of each ball, and whether all states on the way have the attractor's class."""

    rate: Tensor
    steps: Tensor
    error: Tensor
    decided: Tensor


def _returns(flight: Flight, attractors: Tensor, radius: Tensor, most: int) -> _Return:
    """What becomes of balls; θ is infinite where one does not return."""
    tube = ball(attractors, radius, second_order=flight.second_order)
    point = ball(attractors, torch.zeros_like(radius), second_order=False)
    classes = torch.arange(len(attractors), device=attractors.device)
    rate, error = torch.full_like(radius, torch.inf), torch.zeros_like(radius)
    steps, decided = torch.zeros_like(radius).long(), torch.zeros_like(radius).bool()
    right = (flight.margins(tube, classes) > 0).all(dim=1)
    lost = torch.zeros_like(right)
    for step in range(1, most + 1):
        tube, point = flight.step(tube), flight.step(point)
        right &= (flight.margins(tube, classes) > 0).all(dim=1)
        lost |= ~flight.within(tube)
        share = distance(tube, attractors) / radius
        better = (share < torch.where(rate.isinf(), _LARGEST_RATE, rate)) & ~lost
        rate, steps = torch.where(better, share, rate), torch.where(better, step, steps)
        error = torch.where(better, distance(point, attractors), error)
        decided = torch.where(better, right, decided)
        if bool((lost | (rate < _ENOUGH)).all()):
            break
    return _Return(rate, steps, error, decided)
