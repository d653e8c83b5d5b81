r"""Traps: around an attractor a ball that every state comes back to, nearer than before.

The tube of the ball ‖x − x*‖₂ ≤ ρ is followed for m steps. If it ends in the ball of radius θρ, θ < 1, then
no state of the ball ever leaves what the tube passes in these m steps. The smaller ball is followed in turn,
and so on, until what float32 rounds, and how far x* is from being an equilibrium in it, keep a ball from
shrinking: all states end in what the tube of the last one passes, for ever.

Compared with an ellipsoid that one step maps into itself, in the metric of a Lyapunov equation, nothing has
to be bought with the condition number of that metric: what a far from normal coupling does to a deviation
before it decays is in the exact products of m Jacobians.
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
# Balls that are followed on the way to the attractor: with a rate of ½, float32 ends them sooner.
_MOST_SHRINKINGS = 30


@dataclass(frozen=True)
class Traps:
    """One ball ‖x − x*‖₂ ≤ radius for each of K attractors.

    Attributes:
        attractors: x*, shape (K, N).
        radius: ρ, shape (K,), 0 where nothing was proved.
        steps: m, shape (K,).
        rate: θ, shape (K,).
        precision: how near, in L2, all states of a trap are to its attractor in the end, for ever, shape
            (K,); infinite where there is no trap.
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
    known = Spread.of(tube)
    by_nodes = torch.linalg.vector_norm(away + known.reach, dim=1)
    length = torch.linalg.vector_norm(away, dim=1) + known.length
    return torch.minimum(by_nodes, length) * SLACK


@torch.no_grad()
def find_traps(flight: Flight, most_steps: int = 100) -> Traps:
    """The largest ball around each attractor that bisection proves to be a trap, within so many steps.

    Raises:
        SettingError: if there are more than 128 nodes.
    """
    flight.require_basins()
    attractors = flight.attractors
    low = torch.zeros(len(attractors)).to(attractors)
    closest = torch.nn.functional.pdist(attractors).min() / 2
    high = torch.full_like(low, float(closest))
    nothing = torch.zeros_like(low)
    found = _Return(nothing + torch.inf, nothing.long(), nothing + torch.inf, nothing.bool())
    for halving in range(_HALVINGS):
        # geometric, until something holds: traps may be far smaller than the distance of the attractors
        middle = torch.where(low > 0, (low + high) / 2, high / 4) if halving else high
        tried = _returns(flight, middle, most_steps, flight.second_order)
        held = tried.rate < _LARGEST_RATE
        low, high = torch.where(held, middle, low), torch.where(held, high, middle)
        found = _Return(*(torch.where(held, new, old) for new, old in zip(tried, found, strict=True)))
    precision = _precision(flight, low, found)
    return Traps(attractors, low, found.steps, found.rate, precision, found.decided)


def _precision(flight: Flight, radius: Tensor, found: _Return) -> Tensor:
    """How near states of balls that have been found to return come to their attractors, shape (K,)."""
    precision, held = found.farthest, radius > 0
    most = 2 * int(found.steps.max())
    for _ in range(_MOST_SHRINKINGS):
        # of the others nothing is asked: not a number is followed for one step only
        radius = (radius * found.rate).where(held, torch.nan)
        found = _returns(flight, radius, most, second_order=False)
        held = found.rate < _LARGEST_RATE
        if not bool(held.any()):
            break
        precision = torch.where(held, found.farthest, precision)
    return precision


class _Return(NamedTuple):
    """θ and m of each ball, how far states get on the way, and whether all have the attractor's class."""

    rate: Tensor
    steps: Tensor
    farthest: Tensor
    decided: Tensor


def _returns(flight: Flight, radius: Tensor, most: int, second_order: bool) -> _Return:
    """What becomes of balls; θ is infinite where one does not return."""
    attractors = flight.attractors
    tube = ball(attractors, radius, second_order=second_order)
    classes = torch.arange(len(attractors), device=attractors.device)
    rate, farthest, way = torch.full_like(radius, torch.inf), radius, radius
    steps, decided = torch.zeros_like(radius).long(), torch.zeros_like(radius).bool()
    right = (flight.margins(tube, classes) > 0).all(dim=1)
    lost = torch.zeros_like(right)
    for step in range(1, most + 1):
        tube = flight.step(tube)
        right &= (flight.margins(tube, classes) > 0).all(dim=1)
        lost |= ~flight.within(tube)
        away = distance(tube, attractors)
        share, way = away / radius, torch.maximum(way, away)
        better = (share < torch.where(rate.isinf(), _LARGEST_RATE, rate)) & ~lost
        rate, steps = torch.where(better, share, rate), torch.where(better, step, steps)
        farthest = torch.where(better, way, farthest)
        decided = torch.where(better, right, decided)
        if bool((lost | (rate < _ENOUGH)).all()):
            break
    return _Return(rate, steps, farthest, decided)
