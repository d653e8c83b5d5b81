"""The map that really runs, on tubes: from images to the attractors, rounding and clipping included."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.certificates.rounding import rounding_error
from lightning_attractors.certificates.tubes import Spread, Tube, apply, reduced
from lightning_attractors.dynamics.integrate import STEPS, IntegratorName
from lightning_attractors.dynamics.planted import CoupledField, Pointwise
from lightning_attractors.errors import require

# Above this many nodes a tube keeps no second order, which takes N³ numbers for each image.
MOST_NODES_OF_SECOND_ORDER = 64
# Above this many nodes remainders are boxed together after every step: one matrix instead of one for each.
MOST_NODES_OF_BLOCKS = 128
# More than there are in a step: what float32 rounds, beside the sum over the nodes.
_OPERATIONS, _FEW = 16, 16


@dataclass(frozen=True)
class Flight:
    """A map with its attractors: x ↦ step(x), so many times, then logits.

    Attributes:
        coupling: W, shape (N, N), float64, of the very float32 numbers that run.
        reaction: r of F(x) = r(x) + W s(x).
        emission: s.
        dt: step length.
        steps: steps until the evaluation.
        integrator: ``euler``, ``heun`` or ``rk4``.
        bound: where states are clipped; None where they are not.
        attractors: shape (K, N).
        readout: shape (K, N): logits are x · readoutᵀ + offsets.
        offsets: shape (K,).
    """

    coupling: Tensor
    reaction: Pointwise
    emission: Pointwise
    dt: float
    steps: int
    integrator: IntegratorName
    bound: float | None
    attractors: Tensor
    readout: Tensor
    offsets: Tensor

    @property
    def nodes(self) -> int:
        return self.coupling.shape[0]

    @property
    def second_order(self) -> bool:
        """Whether second order is kept exactly: where there are few enough nodes."""
        return self.nodes <= MOST_NODES_OF_SECOND_ORDER

    def field(self, tube: Tube) -> Tube:
        """F(x) for all x in a tube, with what float32 may add or take away."""
        known = Spread.of(tube)
        size = tube.center.abs() + known.reach
        terms = self.reaction.size(size) + self.emission.size(size) @ self.coupling.abs().T
        rounding = rounding_error(terms, self.nodes + _OPERATIONS) + rounding_error(size / self.dt, _FEW)
        emitted = apply(self.emission, tube, known).mapped(self.coupling)
        return apply(self.reaction, tube, known, rounding) + emitted

    def step(self, tube: Tube) -> Tube:
        """One step for all x in a tube, without the clip."""
        moved = STEPS[self.integrator](self.field, tube, self.dt)  # type: ignore[arg-type]
        return reduced(moved) if self.nodes <= MOST_NODES_OF_BLOCKS else reduced(moved, most=1)

    def state_step(self, x: Tensor) -> Tensor:
        """One step for states (..., N) in float64, without the clip."""
        return STEPS[self.integrator](self._state_field, x, self.dt)

    def _state_field(self, x: Tensor) -> Tensor:
        return self.reaction.derivative(x, 0) + self.emission.derivative(x, 0) @ self.coupling.T

    def margins(self, tube: Tube, labels: Tensor) -> Tensor:
        """Lower bounds (B, K) of logit_label − logit_j in float32 over a tube; ∞ at the label."""
        rows = self.readout[labels][:, None, :] - self.readout
        offsets = self.offsets[labels][:, None] - self.offsets
        difference = tube.mapped(rows)
        size = tube.center.abs() + tube.reach()
        terms = size @ self.readout.abs().T + self.offsets.abs()
        rounding = rounding_error(terms, self.nodes + _OPERATIONS)
        lost = rounding + rounding.gather(1, labels[:, None])
        margins = difference.center + offsets - difference.reach() - lost
        return margins.scatter(1, labels[:, None], torch.inf)

    def within(self, tube: Tube) -> Tensor:
        """Whether the clip is idle over a tube and the tube says anything, shape (B,)."""
        farthest = (tube.center.abs() + tube.reach()).amax(dim=1)
        most = 8 * float(self.attractors.abs().max()) if self.bound is None else self.bound
        return farthest < most


def flight(
    field: CoupledField,
    dt: float,
    steps: int,
    integrator: IntegratorName,
    bound: float | None,
    attractors: Tensor,
    readout: Tensor,
    offsets: Tensor,
) -> Flight:
    """The flight of a field, everything taken to float64.

    Raises:
        SettingError: if the field does not say how its nodes bend.
    """
    functions = field.pointwise()
    valid = "must say how its nodes act, with bounds of their second derivatives: see CoupledField.pointwise"
    require(functions is not None, "field", type(field).__name__, valid)
    assert functions is not None
    tensors = [tensor.detach().double() for tensor in (field.coupling, attractors, readout, offsets)]
    return Flight(tensors[0], *functions, dt, steps, integrator, bound, *tensors[1:])
