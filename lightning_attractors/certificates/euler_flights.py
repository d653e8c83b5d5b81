r"""Flights of many nodes under Euler's method: everything of an image that no radius changes, computed once.

A deviation from the trajectory c_k of an image is d_k = Φ_k u + w_k, with u in the ball of radius r, and Φ_k
the product of the Jacobians J_k = diag(1 + Δt r′) + Δt W diag(s′). The rest grows as w_{k+1} = J_k w_k + t_k
with t_k = Δt (½r″δ² + W ½s″δ²). Of Φ only the lengths of the rows and the norm are kept, of J_k only its
norm, and of every margin the adjoint λ_k, so that what the rest does to the margin, Σ_k ⟨λ_{k+1}, t_k⟩, is
no product of norms. What is left for a radius is arithmetic with vectors of N numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.certificates.flights import Flight
from lightning_attractors.certificates.tubes import SLACK, bend, spectral_norm

# The norm of Φ_k is off by the eighth root of the nodes at most, which the product of the ‖J_k‖ makes up for.
_SQUARINGS = 1


@dataclass(frozen=True)
class PreparedFlight:
    """What is known of the trajectories of B images before a radius is asked for, over k = 0 … steps − 1.

    Attributes:
        flight: the map.
        labels: shape (B,).
        centers: c_k, and the end, shape (steps + 1, B, N).
        rows: lengths of the rows of Φ_k, and of the last, shape (steps + 1, B, N).
        norms: bounds of ‖Φ_k‖₂, shape (steps, B).
        jacobians: bounds of ‖J_k‖₂, shape (steps, B).
        adjoints: λ_{k+1} of every margin, shape (steps, B, K, N).
        gradients: lengths of the margins' gradients at the images, ‖λ_0‖₂, shape (B, K).
        coupling_norm: bound of ‖Δt W‖₂.
    """

    flight: Flight
    labels: Tensor
    centers: Tensor
    rows: Tensor
    norms: Tensor
    jacobians: Tensor
    adjoints: Tensor
    gradients: Tensor
    coupling_norm: float

    def holds(self, radii: Tensor) -> Tensor:
        """Whether all states within L2 radii (B,) of the first ones keep the label, shape (B,)."""
        flight, dt = self.flight, self.flight.dt
        lost = radii[:, None] * self.gradients
        rest, straight = torch.zeros_like(radii), radii
        alive = torch.ones_like(radii, dtype=torch.bool)
        for k, center in enumerate(self.centers[:-1]):
            reach = radii[:, None] * self.rows[k] + rest[:, None]
            alive &= flight.inside(center.abs() + reach)
            lengths = [radii * self.norms[k] + rest, torch.linalg.vector_norm(reach, dim=1), straight]
            length = torch.stack(lengths).amin(dim=0)
            own, emitted = (bend(h, center, reach) for h in (flight.reaction, flight.emission))
            rounding = dt * flight.rounding(center.abs() + reach)
            noise = torch.linalg.vector_norm(rounding, dim=1)

            adjoint = self.adjoints[k]
            lost = lost + (adjoint.abs() @ rounding[:, :, None])[..., 0]
            for weights, bent in ((dt * adjoint, own), (dt * adjoint @ flight.coupling, emitted)):
                lost = lost + _inner(weights * bent[:, None, :], reach, length)
            growth = dt * own.amax(dim=1) + self.coupling_norm * emitted.amax(dim=1)
            added = dt * _length(own, reach, length) + self.coupling_norm * _length(emitted, reach, length)
            straight = ((self.jacobians[k] + growth) * straight + noise) * SLACK
            rest = (self.jacobians[k] * rest + added + noise) * SLACK
        reach = radii[:, None] * self.rows[-1] + rest[:, None]
        alive &= flight.inside(self.centers[-1].abs() + reach)
        margins = flight.margins_at(self.centers[-1], reach, self.labels) - lost * SLACK
        return alive & (margins.scatter(1, self.labels[:, None], torch.inf) > 0).all(dim=1)


def prepare(flight: Flight, states: Tensor, labels: Tensor) -> PreparedFlight:
    """Follow the trajectories of states (B, N), float64, with everything that no radius changes."""
    dt, coupling = flight.dt, flight.coupling
    centers, leaks, slopes = [states], [], []
    for _ in range(flight.steps):
        leaks.append(1 + dt * flight.reaction.derivative(centers[-1], 1))
        slopes.append(flight.emission.derivative(centers[-1], 1))
        centers.append(flight.state_step(centers[-1]))
    coupling_norm = float(spectral_norm(dt * coupling))
    jacobians = [
        _jacobian_norm(dt * coupling, coupling_norm, d, s) for d, s in zip(leaks, slopes, strict=True)
    ]

    transition = torch.eye(flight.nodes, dtype=states.dtype, device=states.device)
    transition = transition.expand(len(states), -1, -1)
    ones = torch.ones_like(states)
    rows, norms = [ones], [ones[:, 0]]
    for d, s, jacobian in zip(leaks, slopes, jacobians, strict=True):
        transition = d[:, :, None] * transition + dt * coupling @ (s[:, :, None] * transition)
        rows.append(torch.linalg.vector_norm(transition, dim=2) * SLACK)
        norms.append(torch.minimum(spectral_norm(transition, _SQUARINGS), norms[-1] * jacobian))

    adjoint = flight.readout[labels][:, None, :] - flight.readout
    adjoints = []
    for d, s in zip(reversed(leaks), reversed(slopes), strict=True):
        adjoints.append(adjoint)
        adjoint = d[:, None] * adjoint + s[:, None] * (dt * adjoint @ coupling)
    return PreparedFlight(
        flight,
        labels,
        torch.stack(centers),
        torch.stack(rows),
        torch.stack(norms[:-1]),
        torch.stack(jacobians),
        torch.stack(adjoints[::-1]),
        torch.linalg.vector_norm(adjoint, dim=2) * SLACK,
        coupling_norm,
    )


def _jacobian_norm(coupling: Tensor, coupling_norm: float, leaks: Tensor, slopes: Tensor) -> Tensor:
    """Bounds (B,) of ‖diag(d) + Δt W diag(s)‖₂: that of the middles of d and s, and how far d and s vary."""
    middle = (leaks.amin() + leaks.amax()) / 2
    slope = (slopes.amin() + slopes.amax()) / 2
    shared = spectral_norm(middle * torch.eye(len(coupling)).to(coupling) + slope * coupling)
    varied = coupling_norm * (slopes - slope).abs().amax(dim=1)
    return (shared + (leaks - middle).abs().amax(dim=1) + varied) * SLACK


def _length(bent: Tensor, reach: Tensor, length: Tensor) -> Tensor:
    """Bound (B,) of ‖s ∘ δ‖₂."""
    return torch.minimum(bent.amax(dim=1) * length, torch.linalg.vector_norm(bent * reach, dim=1))


def _inner(weights: Tensor, reach: Tensor, length: Tensor) -> Tensor:
    """Bounds (B, K) of |⟨w, δ⟩| for weights of shape (B, K, N)."""
    by_norm = torch.linalg.vector_norm(weights, dim=2) * length[:, None]
    return torch.minimum(by_norm, (weights.abs() @ reach[:, :, None])[..., 0])
