"""Noise that drives a network out of equilibrium and falls silent at its attractors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# e³ = 20: from tanh 20 on, d is 1 to the last bit of float64.
_SATURATED = 3.0
# Keeps logarithms and divisions finite at an attractor.
_TINY = 1e-20


def damping_scale(attractors: Tensor) -> float:
    """D²: the geometric mean of the squared distances between attractors (K, N), K ≥ 2."""
    return float(torch.nn.functional.pdist(attractors.double()).square().log().mean().exp())


class DampedNoise:
    r"""The noise σ d(x) ξ(t) of a Langevin equation, ξ white and Gaussian (Chicchi et al., 2024).

    d(x) = tanh(2 ∏_k ‖x − x̄⁽ᵏ⁾‖² / D²) lies in [0, 1] and is the same for all nodes of a state. It vanishes
    at every attractor x̄⁽ᵏ⁾. The scale D², which the paper leaves open, is :func:`damping_scale`: with it the
    product is about ‖x − x̄⁽ᵏ⁾‖²/D² near any attractor, whatever the number of attractors and nodes, and d
    exceeds tanh 2 = 0.96 where attractors are, in the geometric mean, no nearer than they are to each other.

    One object is one realisation: every call draws the next ξ from the generator.

    Args:
        attractors: x̄, shape (K, N), K ≥ 2.
        sigma: amplitude σ, at least 0.
        generator: where ξ comes from, on the device of the states.
        scale: D².
        shared: whether all states of a batch meet the same ξ(t), instead of each its own.
    """

    def __init__(
        self,
        attractors: Tensor,
        sigma: float,
        generator: torch.Generator,
        scale: float,
        shared: bool = False,
    ) -> None:
        self.attractors = attractors
        self.sigma = sigma
        self.generator = generator
        self.scale = scale
        self.shared = shared

    def __call__(self, x: Tensor) -> Tensor:
        """σ d(x) ξ for states (B, N), differentiable in x; the factor √Δt is the integrator's."""
        return self.sigma * self.damping(self.distances(x)).to(x.dtype) * self.draw(torch.empty_like(x))

    def amplitude(self, dt: float) -> float:
        """σ √Δt: the standard deviation that a step of length Δt gives to a node where d = 1."""
        return self.sigma * math.sqrt(dt)

    def draw(self, out: Tensor) -> Tensor:
        """Fill ``out`` with the next ξ, standard normal."""
        if not self.shared:
            return out.normal_(generator=self.generator)
        return out.copy_(torch.empty_like(out[0]).normal_(generator=self.generator))

    def distances(self, x: Tensor) -> Tensor:
        """‖x − x̄⁽ᵏ⁾‖² / D² of states (B, N), shape (B, K), differentiable.

        In float64, in which the digits of a distance near 0 survive the matrix product.
        """
        exact, attractors = x.double(), self.attractors.double()
        sizes = exact.square().sum(dim=1, keepdim=True) + attractors.square().sum(dim=1)
        return torch.addmm(sizes, exact, attractors.T, alpha=-2).clamp(min=_TINY) / self.scale

    def damping(self, distances: Tensor) -> Tensor:
        """d, shape (B, 1), from the distances (B, K)."""
        return _doubled_product(distances).tanh()

    def pull_back_(
        self, x: Tensor, distances: Tensor, adjoint: Tensor, draw: Tensor, dt: float, out: Tensor
    ) -> None:
        """Add σ √Δt ⟨l, ξ⟩ ∇d(x), the noise's share of a step's adjoint, to ``out`` (B, N)."""
        product = _doubled_product(distances)
        # ∇d = Σ_k w_k (x − x̄⁽ᵏ⁾)
        weights = 2 / self.scale * (1 - product.tanh().square()) * (product / distances)
        weights *= self.amplitude(dt) * (adjoint * draw).sum(dim=1, keepdim=True)
        out.addcmul_(x, weights.sum(dim=1, keepdim=True).to(x.dtype))
        out.addmm_(weights.to(x.dtype), self.attractors, alpha=-1)


def _doubled_product(distances: Tensor) -> Tensor:
    """2 ∏_k of distances (B, K), shape (B, 1), up to where tanh is 1; in logarithms, against overflow."""
    total = distances.log().sum(dim=1, keepdim=True) + math.log(2)
    return total.clamp(max=_SATURATED).exp()
