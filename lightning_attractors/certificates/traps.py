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
    """

    attractors: Tensor
    radius: Tensor
    steps: Tensor
    rate: Tensor
    precision: Tensor

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
    steps, rate = torch.zeros_like(low).long(), torch.ones_like(low)
    precision = torch.full_like(low, torch.inf)
    for halving in range(_HALVINGS):
        # geometric, until something holds: traps may be far smaller than the distance of the attractors
        middle = torch.where(low > 0, (low + high) / 2, high / 4) if halving else high
        came, after, error = _returns(flight, attractors, middle, most_steps)
        held = came < _LARGEST_RATE
        low, high = torch.where(held, middle, low), torch.where(held, high, middle)
        steps, rate = torch.where(held, after, steps), torch.where(held, came, rate)
        precision = torch.where(held, error / (1 - came), precision)
    return Traps(attractors, low, steps, rate, precision)


def _returns(flight: Flight, attractors: Tensor, radius: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """θ, m and e of each ball; θ is infinite where it does not return."""
    tube = ball(attractors, radius, second_order=flight.second_order)
    point = ball(attractors, torch.zeros_like(radius), second_order=False)
    rate, error = torch.full_like(radius, torch.inf), torch.zeros_like(radius)
    steps = torch.zeros_like(radius).long()
    for step in range(1, most + 1):
        tube, point = flight.step(tube), flight.step(point)
        lost = flight.within(tube).logical_not()
        share = distance(tube, attractors) / radius
        better = (share < torch.where(rate.isinf(), _LARGEST_RATE, rate)) & ~lost
        rate, steps = torch.where(better, share, rate), torch.where(better, step, steps)
        error = torch.where(better, distance(point, attractors), error)
        if bool((lost | (rate < _ENOUGH)).all()):
            break
    return rate, steps, error
