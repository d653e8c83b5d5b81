"""The map that really runs, on tubes: from images to the attractors, rounding and clipping included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from lightning_attractors.certificates.rounding import rounding_error
from lightning_attractors.certificates.tubes import Spread, Tube, apply, reduced
from lightning_attractors.dynamics.integrate import STEPS, IntegratorName, clipped
from lightning_attractors.dynamics.planted import CoupledField, Pointwise
from lightning_attractors.errors import require

# Above this many nodes a tube keeps no second order, which takes N³ numbers for each image.
MOST_NODES_OF_SECOND_ORDER = 64
# Above this many nodes remainders are boxed together after every step: one matrix instead of one for each.
MOST_NODES_OF_BLOCKS = 128
# More than there are in F: what float32 rounds, beside the sum over the nodes.
_OPERATIONS = 16
# Of x + Δt F(x), in units of the largest |x| of the stages. What is rounded where a stage is formed counts
# as an error of the stage before, which the sum in the end has with another weight; the error of the last
# stage makes up for the difference: 15 units are enough where its weight is ½, and 132 where it is ⅙.
_FEW = MappingProxyType({"euler": 16, "heun": 32, "rk4": 160})


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

    @property
    def has_basins(self) -> bool:
        """Whether traps can be looked for: where there are few enough nodes."""
        return self.nodes <= MOST_NODES_OF_BLOCKS

    def require_basins(self) -> None:
        """Refuse to look for basins in too many nodes.

        Raises:
            SettingError: naming their number.
        """
        valid = f"must be at most {MOST_NODES_OF_BLOCKS}, for basins"
        require(self.has_basins, "nodes", self.nodes, valid)

    def rounding(self, size: Tensor) -> Tensor:
        """What float32 may add to F(x), or take away, where |x| ≤ size: both of shape (B, N).

        The rounding of x + Δt F(x) itself, and of the stages of a step, is counted here, divided by Δt.
        """
        terms = self.reaction.size(size) + self.emission.size(size) @ self.coupling.abs().T
        few = rounding_error(size / self.dt, _FEW[self.integrator])
        return rounding_error(terms, self.nodes + _OPERATIONS) + few

    def step(self, tube: Tube) -> Tube:
        """One step for all x in a tube, without the clip, with what float32 may add or take away."""
        largest = torch.zeros_like(tube.center)

        def field(stage: Tube) -> Tube:
            nonlocal largest
            known = Spread.of(stage)
            largest = torch.maximum(largest, stage.center.abs() + known.reach)
            emitted = apply(self.emission, stage, known).mapped(self.coupling)
            return apply(self.reaction, stage, known, self.rounding(largest)) + emitted

        # sums and multiples are all that it takes
        step = cast(Callable[[Any, Tube, float], Tube], STEPS[self.integrator])
        moved = step(field, tube, self.dt)
        return reduced(moved) if self.nodes <= MOST_NODES_OF_BLOCKS else reduced(moved, most=1)

    def state_step(self, x: Tensor) -> Tensor:
        """One step for states (..., N) in float64."""
        step = STEPS[self.integrator]
        return (step if self.bound is None else clipped(step, self.bound))(self._state_field, x, self.dt)

    def _state_field(self, x: Tensor) -> Tensor:
        return self.reaction.derivative(x, 0) + self.emission.derivative(x, 0) @ self.coupling.T

    def margins(self, tube: Tube, labels: Tensor) -> Tensor:
        """Lower bounds (B, K) of logit_label − logit_j in float32 over a tube; ∞ at the label."""
        rows = self.readout[labels][:, None, :] - self.readout
        margins = self.margins_at(tube.center, tube.reach(), labels) - tube.mapped(rows).reach()
        return margins.scatter(1, labels[:, None], torch.inf)

    def margins_at(self, states: Tensor, reach: Tensor, labels: Tensor) -> Tensor:
        """logit_label − logit_j (B, K) at states (B, N), less what float32 rounds of states so far away."""
        logits = states @ self.readout.T + self.offsets
        terms = (states.abs() + reach) @ self.readout.abs().T + self.offsets.abs()
        rounding = rounding_error(terms, self.nodes + _OPERATIONS)
        own = labels[:, None]
        return logits.gather(1, own) - logits - rounding - rounding.gather(1, own)

    def within(self, tube: Tube) -> Tensor:
        """Whether the clip is idle over a tube and the tube says anything, shape (B,)."""
        return self.inside(tube.center.abs() + tube.reach())

    def inside(self, size: Tensor) -> Tensor:
        """The same of states with |x| ≤ size, shape (B, N)."""
        most = 8 * float(self.attractors.abs().max()) if self.bound is None else self.bound
        return size.amax(dim=1) < most


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
