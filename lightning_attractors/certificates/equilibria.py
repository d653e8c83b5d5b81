r"""Linear stability of equilibria, with bounds on what floating point can hide.

An equilibrium of ẋ = F(x) is asymptotically stable if every eigenvalue of its Jacobian J has a negative
real part, and a fixed point of a step map S if every eigenvalue of ∂S/∂x lies inside the unit circle.

Computed eigenvalues are not eigenvalues. With the computed pairs J V ≈ V Λ and the defect R = J V − V Λ,
V⁻¹ J V = Λ + V⁻¹ R, so by Bauer and Fike every eigenvalue of J lies within ‖V⁻¹ R‖ ≤ ‖R‖_F / σ_min(V) of a
computed one. That radius, with the rounding of R and σ_min added, is the ``error_bound`` here, and a point
counts as stable only if the spectrum stays on the stable side with the bound added.

Nor is a small residual an equilibrium: what counts is the Newton step ‖J⁻¹ F(x*)‖, the distance to the
equilibrium of the linearised field. The verdict speaks of J as computed in float64 at x*; that the
equilibrium within the tolerance has the same signs takes F to be smooth on that scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.contracts import name_of
from lightning_attractors.errors import SettingError

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a matrix with a bound on their error.

    Attributes:
        eigenvalues: computed eigenvalues, complex128, shape (N,); nan if the matrix is not finite.
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
class Point:
    """One map at one point.

    Attributes:
        residual: ‖F(x*)‖₂ of a flow, ‖S(x*) − x*‖₂ of a step map.
        distance: ‖x − x*‖₂ for the point x where the linearised residual vanishes; may be infinite.
        is_fixed: whether that distance is within the tolerance.
        spectrum: spectrum of the Jacobian of F or S at x*.
    """

    residual: float
    distance: float
    is_fixed: bool
    spectrum: Spectrum


@dataclass(frozen=True)
class EquilibriumCertificate:
    """What was found of one equilibrium.

    Attributes:
        flow: the vector field at the equilibrium.
        step: the step map there, if there is one.
    """

    flow: Point
    step: Point | None

    @property
    def flow_is_stable(self) -> bool:
        """Whether the flow is proved stable here."""
        spectrum = self.flow.spectrum
        return self.flow.is_fixed and spectrum.abscissa + spectrum.error_bound < 0

    @property
    def step_is_stable(self) -> bool:
        """Whether the step map is proved stable here; true where there is none."""
        if self.step is None:
            return True
        return self.step.is_fixed and self.step.spectrum.radius + self.step.spectrum.error_bound < 1

    @property
    def stable(self) -> bool:
        """Whether the flow and, where there is one, the step map are proved stable here."""
        return self.flow_is_stable and self.step_is_stable

    @property
    def return_time(self) -> float:
        """t_s = 1 / |abscissa|, the time scale of the slowest return; infinite if not stable."""
        return 1 / abs(self.flow.spectrum.abscissa) if self.flow_is_stable else math.inf


def spectrum(matrix: Tensor) -> Spectrum:
    """Eigenvalues of a real matrix (N, N) in float64, with their error bound.

    Eigenvectors that are dependent to working precision, and entries that are not finite, give an infinite
    bound: nothing is claimed then.
    """
    exact = matrix.detach().double()
    size = len(exact)
    if not bool(exact.isfinite().all()):
        return Spectrum(torch.full((size,), torch.nan, dtype=torch.complex128), math.inf, math.inf)
    values, vectors = torch.linalg.eig(exact)
    singular = torch.linalg.svdvals(vectors)
    rounding = size * torch.finfo(torch.float64).eps
    largest = float(singular[0])
    smallest = float(singular[-1]) - rounding * largest
    if smallest <= 0:
        return Spectrum(values, math.inf, math.inf)
    norm = torch.linalg.matrix_norm
    defect = float(norm(exact.to(vectors) @ vectors - vectors * values))
    defect += 4 * rounding * float(norm(exact)) * float(norm(vectors))
    return Spectrum(values, defect / smallest, largest / smallest)


def jacobian(function: Map, x: Tensor) -> Tensor:
    """Jacobian (N, N) at x (N,) of a map that takes batches (B, N).

    Raises:
        SettingError: if the map hides its derivative from autograd, found by comparing with a difference
            quotient.
    """

    def single(state: Tensor) -> Tensor:
        return function(state.unsqueeze(0)).squeeze(0)

    derivative: Tensor = torch.func.jacrev(single)(x).detach()
    direction = torch.linspace(0.5, 1.0, len(x), dtype=x.dtype, device=x.device)
    width = 1e-5
    quotient = (single(x + width * direction) - single(x - width * direction)).detach() / (2 * width)
    slope = derivative @ direction
    error = torch.linalg.vector_norm(slope - quotient)
    if bool(error > 1e-3 * (torch.linalg.vector_norm(slope) + torch.linalg.vector_norm(quotient) + 1e-3)):
        raise SettingError(
            name_of(function),
            "a map",
            "its derivative must be visible to autograd: remove no_grad and detach from it",
        )
    return derivative


def certify_equilibria(
    equilibria: Tensor, vector_field: Map, step_map: Map | None = None, tolerance: float = 1e-6
) -> list[EquilibriumCertificate]:
    """Certify each of the equilibria of a flow, and of the step map that integrates it.

    Args:
        equilibria: equilibria x*, shape (K, N), float64.
        vector_field: F, from states (B, N) to states (B, N), in float64.
        step_map: the discrete map that really runs, same shapes.
        tolerance: x* may be this far, times 1 + ‖x*‖₂, from where the linearised residual vanishes.

    Returns:
        One certificate per equilibrium, in their order.

    Raises:
        SettingError: if a map hides its derivative from autograd.
    """
    known: list[tuple[Tensor, Spectrum]] = []

    def spectrum_of(matrix: Tensor) -> Spectrum:
        for earlier, result in known:
            # Attractors of one alphabet often share their Jacobian to the bit; eigenvalues are the cost.
            if torch.equal(earlier, matrix):
                return result
        known.append((matrix, spectrum(matrix)))
        return known[-1][1]

    def examine(x: Tensor, residual: Tensor, slope: Tensor, matrix: Tensor) -> Point:
        """``slope`` is the Jacobian of the residual, ``matrix`` that of the map."""
        distance = _newton_distance(slope, residual)
        allowed = tolerance * (1 + float(torch.linalg.vector_norm(x)))
        size = float(torch.linalg.vector_norm(residual))
        return Point(size, distance, distance <= allowed, spectrum_of(matrix))

    certificates = []
    for x in equilibria:
        slope = jacobian(vector_field, x)
        flow = examine(x, vector_field(x.unsqueeze(0)).detach()[0], slope, slope)
        step = None
        if step_map is not None:
            matrix = jacobian(step_map, x)
            moved = step_map(x.unsqueeze(0)).detach()[0] - x
            identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
            step = examine(x, moved, matrix - identity, matrix)
        certificates.append(EquilibriumCertificate(flow, step))
    return certificates


def _newton_distance(slope: Tensor, residual: Tensor) -> float:
    if not bool(slope.isfinite().all() and residual.isfinite().all()):
        return math.inf
    solution, failed = torch.linalg.solve_ex(slope, residual)
    distance = float(torch.linalg.vector_norm(solution))
    return math.inf if bool(failed) or math.isnan(distance) else distance
