"""Training for wide basins: a loss that keeps the flight from image to attractor tame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.errors import require


@dataclass(frozen=True)
class BasinTraining:
    r"""‖x_T(x + v) − φ‖² + g Σ_k ‖x_k(x + q) − x_k(x − q)‖² / (2ρ)² + c ‖W‖_F², with ‖v‖ ≤ ‖q‖ = ρ.

    What bounds a tube is how far its flight spreads small deviations, how much it bends, and how far the end
    is from another class. v is along the gradient of the first term, of random length: the margin at the end.
    q is that direction or a random one, and the differences are of whole steps of size ρ, so that they hold
    the bending too: the growth along the flight. ‖W‖_F bounds what one step can do.

    Args:
        radius: ρ, L2, in the space of the states, above 0.
        growth: g, at least 0.
        coupling: c, at least 0.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    radius: float = 1.0
    growth: float = 5.0
    coupling: float = 1e-3

    def __post_init__(self) -> None:
        require(0 < self.radius < math.inf, "basins.radius", self.radius, "must be above 0 and finite")
        for name, value in (("growth", self.growth), ("coupling", self.coupling)):
            require(0 <= value < math.inf, f"basins.{name}", value, "must be at least 0 and finite")

    def loss(
        self,
        end_of: Callable[[Tensor], Tensor],
        path_of: Callable[[Tensor], Iterable[Tensor]],
        coupling: Tensor,
        states: Tensor,
        targets: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            end_of: from initial states (B, N) to the last ones.
            path_of: from initial states to the states after every step, the first one included.
            coupling: W, shape (N, N).
            states: initial states, shape (B, N).
            targets: φ, the attractors of their labels, shape (B, N).
            generator: of random directions and lengths.
        """
        leaf = states.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((end_of(leaf) - targets).square().sum(), leaf)
        worst = self.radius * _directions(gradient)
        lengths = torch.rand(len(states), 1, generator=generator, device=states.device, dtype=states.dtype)
        loss = (end_of(states + lengths * worst) - targets).square().sum(dim=1).mean()
        if self.growth > 0:
            half = (len(states) + 1) // 2
            noise = torch.empty_like(worst[:half]).normal_(generator=generator)
            chosen = torch.rand(half, 1, generator=generator, device=states.device) < 0.5
            q = torch.where(chosen, self.radius * _directions(noise), worst[:half])
            loss = loss + self.growth * self._growth(path_of, states[:half], q)
        return loss + self.coupling * coupling.square().sum()

    def _growth(self, path_of: Callable[[Tensor], Iterable[Tensor]], states: Tensor, q: Tensor) -> Tensor:
        """Σ_k ‖x_k(x + q) − x_k(x − q)‖² / (2ρ)², the mean over the states."""
        path = iter(path_of(torch.cat([states + q, states - q])))
        next(path)
        total = states.new_zeros(())
        for x in path:
            one, other = x.chunk(2)
            total = total + (one - other).square().sum(dim=1).mean()
        return total / (2 * self.radius) ** 2


def _directions(vectors: Tensor) -> Tensor:
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=1e-12)
