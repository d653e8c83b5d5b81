r"""Jacobians of a map at the points that are certified, each with its inverse and its spectrum.

Attractors often share their Jacobian to the bit, and a step of Euler's method has I + Δt J. Of few nodes that
saves eigenvalues and inverses of equal matrices. Of many it saves the Jacobians too: uᵀJ takes one backward
pass, and by the argument of :mod:`~lightning_attractors.certificates.differences` a matrix that agrees in it
for 40 random signs u has no entry that differs, but with probability 2⁻⁴⁰. Such a matrix is compared with
difference quotients like any other, and how much they differ widens its spectrum.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from lightning_attractors.certificates.differences import FINER_WIDTH, Differences, Map, look
from lightning_attractors.certificates.spectra import Spectrum, disc_of_matrices_within, spectrum
from lightning_attractors.contracts import name_of
from lightning_attractors.errors import require
from lightning_attractors.linalg import MOST_NODES_BY_EIGENVALUES, PowerNorms, active_nodes, power_norms

_SIGNS, _AGREEMENT = 40, 1e-13
# Matrices of many nodes are large, and the newest ones are those that come again.
_MOST_KNOWN = 4
_NORM_STEPS = 10
Kind = Literal["vector_field", "step_map"]


class Linearization:
    """The Jacobian J of a map at a point.

    Args:
        matrix: J, shape (N, N).
        moved: 0 for a flow, where F vanishes, 1 for a step map, where S(x) − x does.
        step: of a flow: the step map of Euler's method to go with it, of many nodes, J = (its − I) / dt.
        dt: its step length.
    """

    def __init__(
        self, matrix: Tensor, moved: float, step: Linearization | None = None, dt: float = 1.0
    ) -> None:
        self.matrix, self.moved, self._step, self._dt = matrix, moved, step, dt

    @cached_property
    def inverse(self) -> Tensor:
        """(J − I)⁻¹ of a step map, J⁻¹ of a flow, shape (N, N); nan where there is none."""
        if self._step is not None:
            return self._dt * self._step.inverse
        matrix = self.matrix - self.moved * torch.eye(len(self.matrix)).to(self.matrix)
        if len(matrix) <= MOST_NODES_BY_EIGENVALUES:
            return _inverse(matrix)
        # The inverse of [B 0; C D] with D diagonal.
        active = active_nodes(matrix)
        inner, rates = _inverse(matrix[active][:, active]), 1 / matrix.diagonal()[~active]
        whole = torch.zeros_like(matrix)
        places, inert = active.argwhere().flatten(), (~active).argwhere().flatten()
        whole[places[:, None], places] = inner
        whole[inert[:, None], places] = -rates[:, None] * (matrix[~active][:, active] @ inner)
        whole[inert, inert] = rates
        return whole

    def agrees(self, signs: Tensor, rows: Tensor) -> bool:
        """Whether uᵀJ is, to rounding, the rows (U, N) for signs u (U, N)."""

        def agree(first: int) -> bool:
            error = (signs[:first] @ self.matrix - rows[:first]).abs()
            return bool((error <= _AGREEMENT * len(self.matrix) ** 0.5 * self._terms).all())

        return agree(1) and agree(len(signs))  # one is quick, and enough for most that do not

    @cached_property
    def _terms(self) -> Tensor:
        """How large the terms of uᵀJ are, shape (N,)."""
        return 1 + self.matrix.abs().sum(dim=0)

    def spectrum(self, distance: float) -> Spectrum:
        """Of every matrix within a distance, in the spectral norm, of J."""
        norms = self.norms
        if norms is not None:
            found = disc_of_matrices_within(norms, distance + self._rounding)
            worst = found.radius if self.moved else found.abscissa
            if worst + found.error_bound < self.moved:
                return found
        return self._eigenvalues.of_matrices_within(distance)

    @property
    def _rounding(self) -> float:
        """How far J may be, in L2, from what its disc is of."""
        if self._step is None:
            return 0.0
        size = float(torch.linalg.matrix_norm(self.matrix)) + len(self.matrix) ** 0.5 / self._dt
        return 4 * torch.finfo(torch.float64).eps * size

    @cached_property
    def _eigenvalues(self) -> Spectrum:
        return spectrum(self.matrix)

    @cached_property
    def norms(self) -> PowerNorms | None:
        """Of powers that show J to be stable; None where they do not, or few nodes have eigenvalues."""
        if len(self.matrix) <= MOST_NODES_BY_EIGENVALUES or not bool(self.matrix.isfinite().all()):
            return None
        if self._step is not None and self._step.norms is not None:
            return self._step.norms.moved(-1.0, 1 / self._dt)
        radius = 1.0 if self.moved else _size(self.matrix)
        return power_norms(self.matrix, self.moved - radius, radius) if radius > 0 else None


class Linearizations:
    """Those of one set of equilibria so far."""

    def __init__(self) -> None:
        self._known: list[Linearization] = []

    def at(self, function: Map, x: Tensor, setting: Kind) -> tuple[Linearization, Differences]:
        """The linearization of a map at x (N,), and what was seen of it there.

        Raises:
            SettingError: as :func:`jacobian`.
        """
        moved = 0.0 if setting == "vector_field" else 1.0
        if len(x) > MOST_NODES_BY_EIGENVALUES:
            akin = self._akin(function, x, moved)
            if akin is not None:
                matrix, differences = checked_jacobian(function, x, setting, akin.matrix)
                return (akin if matrix is akin.matrix else Linearization(matrix, moved)), differences
        matrix, seen = checked_jacobian(function, x, setting)
        for earlier in self._known:
            if earlier.moved == moved and torch.equal(earlier.matrix, matrix):
                return earlier, seen
        return self._keep(Linearization(matrix, moved)), seen

    def _keep(self, new: Linearization) -> Linearization:
        large = len(new.matrix) > MOST_NODES_BY_EIGENVALUES
        self._known = [*(self._known[1 - _MOST_KNOWN :] if large else self._known), new]
        return new

    def _akin(self, function: Map, x: Tensor, moved: float) -> Linearization | None:
        """One that agrees with the map's derivative, known or made from that of the step map."""
        if not self._known:
            return None
        signs = torch.randint(2, (_SIGNS, len(x)), generator=torch.Generator().manual_seed(len(x)))
        signs = (2.0 * signs - 1).to(x)
        rows = _pulled_back(function, x, signs)
        for earlier in reversed(self._known):
            if earlier.moved == moved and earlier.agrees(signs, rows):
                return earlier
        for earlier in [known for known in self._known if not moved and known.moved]:
            change = signs[0] @ earlier.matrix - signs[0]
            dt = float(change.square().sum() / (change * rows[0]).sum())
            if 0 < dt < math.inf and earlier.agrees(signs, signs + dt * rows):
                identity = torch.eye(len(x)).to(x)
                return self._keep(Linearization((earlier.matrix - identity) / dt, moved, earlier, dt))
        return None


def _pulled_back(function: Map, x: Tensor, signs: Tensor) -> Tensor:
    """uᵀJ for each u of (U, N)."""
    pull = torch.func.vjp(_of_one(function), x)[1]
    rows: Tensor = torch.func.vmap(lambda u: pull(u)[0])(signs)
    return rows.detach()


def _inverse(matrix: Tensor) -> Tensor:
    result, failed = torch.linalg.inv_ex(matrix)
    return torch.full_like(matrix, torch.nan) if bool(failed) else result


def _size(matrix: Tensor) -> float:
    """About ‖M‖₂, which makes a disc about −‖M‖₂ wide enough for fast oscillations that decay."""
    vector = torch.ones(len(matrix)).to(matrix)
    for _ in range(_NORM_STEPS):
        vector = torch.nn.functional.normalize(matrix.mT @ (matrix @ vector), dim=0)
    return float(torch.linalg.vector_norm(matrix @ vector))


def _of_one(function: Map) -> Map:
    return lambda state: function(state.unsqueeze(0)).squeeze(0)


def jacobian(function: Map, x: Tensor) -> Tensor:
    """Jacobian (N, N) at x (N,), float64, of a map that takes batches (B, N).

    It is nan where the differences of the map are too coarse to check it.

    Raises:
        SettingError: if the map hides its derivative from autograd or computes in lower precision, found by
            comparing with difference quotients, or does not give float64 of its states' shape.
    """
    return checked_jacobian(function, x, name_of(function))[0]


def checked_jacobian(
    function: Map, x: Tensor, setting: str, known: Tensor | None = None
) -> tuple[Tensor, Differences]:
    """The same, or one known to agree, with what was seen of the map; ``setting`` is its name."""
    seen = look(function, x, setting)
    derivative: Tensor = torch.func.jacrev(_of_one(function))(x).detach() if known is None else known
    if not seen.resolve(derivative):
        seen = look(function, x, setting, FINER_WIDTH)
    valid = "must compute in float64 throughout: its values have the rounding of a lower precision"
    require(seen.is_exact(derivative), setting, name_of(function), valid)
    valid = (
        "its derivative must be visible to autograd, which difference quotients contradict: "
        "remove no_grad and detach from it, and look at backward passes written by hand"
    )
    require(not seen.contradict(derivative), setting, name_of(function), valid)
    return (derivative if seen.resolve(derivative) else torch.full_like(derivative, torch.nan)), seen
