r"""Linear stability of equilibria, with bounds on what floating point can hide.

An equilibrium of ẋ = F(x) is asymptotically stable if every eigenvalue of its Jacobian J has a negative
real part, and a fixed point of a step map S if every eigenvalue of ∂S/∂x lies inside the unit circle.
Computed eigenvalues are not eigenvalues. With the computed pairs J V ≈ V Λ and the defect R = J V − V Λ,
V⁻¹ J V = Λ + V⁻¹ R, so by Bauer and Fike every eigenvalue of J lies within ‖V⁻¹ R‖ ≤ ‖R‖_F / σ_min(V) of a
computed one. That radius, with the rounding of R itself added, is the ``error_bound`` here, and an
equilibrium counts as stable only if the spectrum stays on the stable side with the bound added.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a matrix with a bound on their error.

    Attributes:
        eigenvalues: computed eigenvalues, complex128, shape (N,).
        error_bound: every true eigenvalue is within this distance of a computed one; may be infinite.
        condition: condition number of the eigenvectors, σ_max(V) / σ_min(V); may be infinite.
    """

    eigenvalues: Tensor
    error_bound: float
    condition: float

    @property
    def abscissa(self) -> float:
        """Largest real part."""
        return float(self.eigenvalues.real.max())

    @property
    def radius(self) -> float:
        """Largest modulus."""
        return float(self.eigenvalues.abs().max())


@dataclass(frozen=True)
class EquilibriumCertificate:
    """What was found of one equilibrium.

    Attributes:
        residual: ‖F(x*)‖₂.
        flow: spectrum of the Jacobian of F at x*.
        step: spectrum of the Jacobian of the step map at x*, if there is a step map.
        is_equilibrium: whether the residual is within the tolerance.
    """

    residual: float
    flow: Spectrum
    step: Spectrum | None
    is_equilibrium: bool

    @property
    def flow_is_stable(self) -> bool:
        """Whether the flow is proved stable here."""
        return self.is_equilibrium and self.flow.abscissa + self.flow.error_bound < 0

    @property
    def step_is_stable(self) -> bool:
        """Whether the step map is proved stable here; true where there is none."""
        return self.step is None or (self.is_equilibrium and self.step.radius + self.step.error_bound < 1)

    @property
    def stable(self) -> bool:
        """Whether the flow and, where there is one, the step map are proved stable here."""
        return self.flow_is_stable and self.step_is_stable

    @property
    def return_time(self) -> float:
        """t_s = 1 / |abscissa|, the time scale of the slowest return; infinite if not stable."""
        return 1 / abs(self.flow.abscissa) if self.flow_is_stable else math.inf


def spectrum(matrix: Tensor) -> Spectrum:
    """Eigenvalues of a real matrix (N, N) in float64, with their error bound.

    Eigenvectors that are dependent to working precision give an infinite bound: nothing is claimed then.

    Raises:
        ValueError: if the matrix has entries that are not finite.
    """
    if not bool(matrix.isfinite().all()):
        raise ValueError("the Jacobian has entries that are not finite")
    exact = matrix.detach().double()
    size = len(exact)
    values, vectors = torch.linalg.eig(exact)
    singular = torch.linalg.svdvals(vectors)
    largest, smallest = float(singular[0]), float(singular[-1])
    rounding = size * torch.finfo(torch.float64).eps
    if smallest <= rounding * largest:
        return Spectrum(values, math.inf, math.inf)
    defect = float(torch.linalg.matrix_norm(exact.to(vectors) @ vectors - vectors * values))
    defect += rounding * float(torch.linalg.matrix_norm(exact)) * largest
    return Spectrum(values, defect / smallest, largest / smallest)


def jacobian(function: Map, x: Tensor) -> Tensor:
    """Jacobian (N, N) at x (N,) of a map that takes batches (B, N)."""
    derivative: Tensor = torch.func.jacrev(lambda state: function(state.unsqueeze(0)).squeeze(0))(x)
    return derivative.detach()


def certify_equilibria(
    equilibria: Tensor, vector_field: Map, step_map: Map | None = None, tolerance: float = 1e-6
) -> list[EquilibriumCertificate]:
    """Certify each of the equilibria of a flow, and of the step map that integrates it.

    Args:
        equilibria: equilibria x*, shape (K, N), float64.
        vector_field: F, from states (B, N) to states (B, N), in float64.
        step_map: the discrete map that really runs, same shapes.
        tolerance: ‖F(x*)‖₂ may be this large, times 1 + ‖x*‖₂.

    Returns:
        One certificate per equilibrium, in their order.

    Raises:
        ValueError: if a Jacobian has entries that are not finite.
    """
    known: list[tuple[Tensor, Spectrum]] = []

    def spectrum_at(function: Map, x: Tensor) -> Spectrum:
        matrix = jacobian(function, x)
        for earlier, result in known:
            # Attractors of one alphabet often share their Jacobian to the bit; eigenvalues are the cost.
            if torch.equal(earlier, matrix):
                return result
        known.append((matrix, spectrum(matrix)))
        return known[-1][1]

    certificates = []
    for x in equilibria:
        residual = float(torch.linalg.vector_norm(vector_field(x.unsqueeze(0)).detach()))
        certificates.append(
            EquilibriumCertificate(
                residual=residual,
                flow=spectrum_at(vector_field, x),
                step=spectrum_at(step_map, x) if step_map is not None else None,
                is_equilibrium=residual <= tolerance * (1 + float(torch.linalg.vector_norm(x))),
            )
        )
    return certificates
