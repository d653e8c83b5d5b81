"""Noise that drives a network out of equilibrium and falls silent at its attractors."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# tanh is 1 to the last bit of float64 from here on.
_SATURATED = 20.0
# Below any squared distance of float32 states that differ, and above 0, by which weights are divided.
_TINY = 1e-20


def keyed_generator(device: torch.device, *key: int) -> torch.Generator:
    """A generator whose state is a function of the key only; the numbers are hashed, not added.

    Args:
        device: where it draws.
        key: non-negative integers, such as a seed, a rank and a step.
    """
    # The length too: SeedSequence ignores trailing zeros.
    seed = int(np.random.SeedSequence([len(key), *key]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed & (2**63 - 1))


class DampedNoise:
    r"""The noise σ d(x) ξ(t) of a Langevin equation, ξ white and Gaussian (Chicchi et al., 2024).

    d(x) = tanh(2 ∏_k ‖x − x̄⁽ᵏ⁾‖² / D²) lies in [0, 1] and is the same for all nodes of a state. It vanishes
    at every attractor x̄⁽ᵏ⁾. The scale D², which the paper leaves open, is the smallest squared distance
    between two attractors, whatever the number of nodes, so that d exceeds tanh 2 = 0.96 where no attractor
    is nearer than they are to each other.

    One object is one realisation: every call draws the next ξ from the generator.

    Args:
        attractors: x̄, shape (K, N), K ≥ 1.
        sigma: amplitude σ, at least 0.
        generator: where ξ comes from, on the device of the states.
    """

    def __init__(self, attractors: Tensor, sigma: float, generator: torch.Generator) -> None:
        self.attractors = attractors
        self.sigma = sigma
        self.generator = generator
        distances = torch.nn.functional.pdist(attractors)
        # A single attractor has no neighbour; its own size is the scale then.
        scale = distances.min() if len(distances) else attractors.norm()
        self.scale = float(scale) ** 2

    def __call__(self, x: Tensor) -> Tensor:
        """σ d(x) ξ for states (B, N), differentiable in x; the factor √Δt is the integrator's."""
        return self.sigma * self.damping(self.distances(x)).to(x.dtype) * self.draw(torch.empty_like(x))

    def amplitude(self, dt: float) -> float:
        """σ √Δt: the standard deviation that a step of length Δt gives to a node where d = 1."""
        return self.sigma * math.sqrt(dt)

    def draw(self, out: Tensor) -> Tensor:
        """Fill ``out`` with the next ξ, standard normal."""
        return out.normal_(generator=self.generator)

    def distances(self, x: Tensor) -> Tensor:
        """‖x − x̄⁽ᵏ⁾‖² / D² of states (B, N), shape (B, K), differentiable.

        In float64, in which the digits of a distance near 0 survive the matrix product.
        """
        exact, attractors = x.double(), self.attractors.double()
        sizes = exact.square().sum(dim=1, keepdim=True) + attractors.square().sum(dim=1)
        return torch.addmm(sizes, exact, attractors.T, alpha=-2).clamp(min=_TINY) / self.scale

    def damping(self, distances: Tensor) -> Tensor:
        """d, shape (B, 1), from the distances (B, K)."""
        return (2 * distances.prod(dim=1, keepdim=True)).clamp(max=_SATURATED).tanh()

    def pull_back_(
        self, x: Tensor, distances: Tensor, adjoint: Tensor, draw: Tensor, dt: float, out: Tensor
    ) -> None:
        """Add σ √Δt ⟨l, ξ⟩ ∇d(x), the noise's share of a step's adjoint, to ``out`` (B, N)."""
        product = (2 * distances.prod(dim=1, keepdim=True)).clamp_(max=_SATURATED)
        # ∇d = Σ_k w_k (x − x̄⁽ᵏ⁾)
        weights = 2 / self.scale * (1 - product.tanh().square()) * (product / distances)
        weights *= self.amplitude(dt) * (adjoint * draw).sum(dim=1, keepdim=True)
        out.addcmul_(x, weights.sum(dim=1, keepdim=True).to(x.dtype))
        out.addmm_(weights.to(x.dtype), self.attractors, alpha=-1)
