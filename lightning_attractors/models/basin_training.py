"""Training for wide basins: a loss that keeps the flight from image to attractor tame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lightning_attractors.errors import require


@dataclass(frozen=True)
class BasinTraining:
    r"""CE(s · logits(x_d(x + v))) + g Σ_{k ≤ d} ‖x_k(x + q) − x_k(x − q)‖² / (2ρ)² + w ‖x_T − φ‖² + c ‖W‖_F².

    What bounds a tube is how far its flight spreads small deviations, how much it bends, and how far the end
    is from another class. After d steps a state has to be on its class's side only, from where wells carry it
    to the attractor by the time T: to hurry it there spreads more than it decides. v, ‖v‖ ≤ ρ, is along the
    gradient of the first term, of random length: the margin. q, ‖q‖ = ρ, is that direction or a random one;
    differences are of whole steps of size ρ, so that they hold the bending too: the growth along the flight.
    ‖W‖_F bounds what one step can do.

    Args:
        radius: ρ, L2, in the space of the states, above 0.
        decide: d, the steps after which the class is asked for, at least 1 and at most those of the model.
        growth: g, at least 0.
        settle: w, at least 0.
        coupling: c, at least 0.
        sharpness: s, by which logits, confident at attractors, are multiplied; above 0.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    radius: float = 1.0
    decide: int = 15
    growth: float = 0.1
    settle: float = 0.1
    coupling: float = 1e-3
    sharpness: float = 3.0

    def __post_init__(self) -> None:
        for name, value in (("radius", self.radius), ("sharpness", self.sharpness)):
            require(0 < value < math.inf, f"basins.{name}", value, "must be above 0 and finite")
        for name, value in (("growth", self.growth), ("settle", self.settle), ("coupling", self.coupling)):
            require(0 <= value < math.inf, f"basins.{name}", value, "must be at least 0 and finite")
        require(self.decide >= 1, "basins.decide", self.decide, "must be at least 1")

    def loss(self, flight: Flown, states: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of a batch of initial states (B, N) with labels (B,); the generator is of directions."""

        def sided(x: Tensor) -> Tensor:
            logits = flight.logits_of(flight.end_of(x, self.decide))
            return functional.cross_entropy(self.sharpness * logits, labels)

        leaf = states.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(sided(leaf), leaf)
        worst = self.radius * functional.normalize(gradient)
        lengths = torch.rand(len(states), 1, generator=generator, device=states.device, dtype=states.dtype)
        loss = sided(states + lengths * worst)
        if self.growth > 0:
            half = (len(states) + 1) // 2
            noise = torch.empty_like(worst[:half]).normal_(generator=generator)
            chosen = torch.rand(half, 1, generator=generator, device=states.device) < 0.5
            q = torch.where(chosen, self.radius * functional.normalize(noise), worst[:half])
            loss = loss + self.growth * self._growth(flight, states[:half], q)
        if self.settle > 0:
            missed = flight.end_of(states, flight.steps) - flight.attractors[labels]
            loss = loss + self.settle * missed.square().sum(dim=1).mean()
        return loss + self.coupling * flight.coupling.square().sum()

    def _growth(self, flight: Flown, states: Tensor, q: Tensor) -> Tensor:
        """Σ_k ‖x_k(x + q) − x_k(x − q)‖² / (2ρ)², the mean over the states."""
        path = iter(flight.path_of(torch.cat([states + q, states - q]), self.decide))
        next(path)
        total = states.new_zeros(())
        for x in path:
            one, other = x.chunk(2)
            total = total + (one - other).square().sum(dim=1).mean()
        return total / (2 * self.radius) ** 2


@dataclass(frozen=True)
class Flown:
    """How a model carries states, in training.

    Attributes:
        end_of: from initial states (B, N) and a number of steps to the last ones.
        path_of: the same to all of them, the first ones included.
        logits_of: from states to logits (B, K).
        attractors: shape (K, N).
        coupling: W, shape (N, N).
        steps: T, of the model.
    """

    end_of: Callable[[Tensor, int], Tensor]
    path_of: Callable[[Tensor, int], Iterable[Tensor]]
    logits_of: Callable[[Tensor], Tensor]
    attractors: Tensor
    coupling: Tensor
    steps: int
