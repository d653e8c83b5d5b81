"""Noise that drives a network out of equilibrium and falls silent at its attractors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_attractors.dynamics.planted.damping import (
    DampingName,
    check_damping,
    damping_of,
    damping_slopes,
)

# Keeps logarithms and divisions finite at an attractor.
_TINY = 1e-20


class DampedNoise:
    r"""The noise σ d(x) ξ(t) of a Langevin equation, ξ white and Gaussian (Chicchi et al., 2024).

    d(x) lies in [0, 1], is the same for all nodes of a state and vanishes at every attractor x̄⁽ᵏ⁾. It is a
    function of the squared distances ‖x − x̄⁽ᵏ⁾‖² on the scale D², which the paper leaves open: its form is
    one of :mod:`~lightning_attractors.dynamics.planted.damping`, its scale :func:`damping_scale`.

    One object is one realisation: every call draws the next ξ from the generator.

    Args:
        attractors: x̄, shape (K, N), K ≥ 2.
        sigma: amplitude σ, at least 0.
        generator: where ξ comes from, on the device of the states.
        scale: D².
        shared: whether all states of a batch meet the same ξ(t), instead of each its own.
        form: that of d, ``saturating`` or ``published``.

    Raises:
        SettingError: if there is no form of that name.
    """

    def __init__(
        self,
        attractors: Tensor,
        sigma: float,
        generator: torch.Generator,
        scale: float,
        shared: bool = False,
        form: DampingName = "saturating",
    ) -> None:
        check_damping(form)
        self.attractors = attractors
        self.sigma = sigma
        self.generator = generator
        self.scale = scale
        self.shared = shared
        self.form = form

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
        return damping_of(self.form, distances)

    def pull_back_(
        self, x: Tensor, distances: Tensor, adjoint: Tensor, draw: Tensor, dt: float, out: Tensor
    ) -> None:
        """Add σ √Δt ⟨l, ξ⟩ ∇d(x), the noise's share of a step's adjoint, to ``out`` (B, N)."""
        # ∇d = Σ_k w_k (x − x̄⁽ᵏ⁾)
        weights = 2 / self.scale * damping_slopes(self.form, distances)
        weights *= self.amplitude(dt) * (adjoint * draw).sum(dim=1, keepdim=True)
        out.addcmul_(x, weights.sum(dim=1, keepdim=True).to(x.dtype))
        out.addmm_(weights.to(x.dtype), self.attractors, alpha=-1)
