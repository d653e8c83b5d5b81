r"""Eigenvalues of a Jacobian, or a disc that holds them, with bounds on what floating point can hide.

Computed eigenvalues are not eigenvalues. With the computed pairs J V ≈ V Λ and the defect R = J V − V Λ,
V⁻¹ J V = Λ + V⁻¹ R, so by Bauer and Fike every eigenvalue of J lies within ‖V⁻¹ R‖ ≤ ‖R‖_F / σ_min(V) of a
computed one. That radius, with the rounding of R and σ_min added, is the ``error_bound`` here.

For thousands of nodes that takes minutes; a disc about one centre that holds all eigenvalues takes seconds
(:class:`~lightning_attractors.linalg.PowerNorms`). Where it lies on the stable side, nothing else is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_attractors.linalg import PowerNorms


@dataclass(frozen=True)
class Spectrum:
    """Where the eigenvalues of a matrix are.

    Attributes:
        eigenvalues: computed eigenvalues, complex128, shape (N,); nan if the matrix is not finite. If
            ``reach`` is above 0 the centre of a disc in their place, shape (1,).
        error_bound: every true eigenvalue is within this distance, and ``reach``, of one of them; may be
            infinite.
        condition: how much faster than the matrix its eigenvalues, or the disc, may move: where eigenvalues
            are computed the condition number of the eigenvectors, σ_max(V) / σ_min(V); may be infinite.
        reach: radius of the disc; 0 where eigenvalues are computed.
    """

    eigenvalues: Tensor
    error_bound: float
    condition: float
    reach: float = 0.0

    @property
    def is_bound(self) -> bool:
        """Whether abscissa and radius are upper bounds, of a disc, in place of computed values."""
        return self.reach > 0

    @property
    def abscissa(self) -> float:
        """Largest real part, or its upper bound."""
        return float(self.eigenvalues.real.max()) + self.reach

    @property
    def radius(self) -> float:
        """Largest modulus, or its upper bound."""
        return float(self.eigenvalues.abs().max()) + self.reach

    def of_matrices_within(self, distance: float) -> Spectrum:
        """The same for every matrix within a distance, in the spectral norm, of this one's."""
        wider = self.error_bound + self.condition * distance
        return replace(self, error_bound=math.inf if math.isnan(wider) else wider)


def disc_of_matrices_within(norms: PowerNorms, distance: float) -> Spectrum:
    """The disc of one matrix, for every matrix within a distance of it in the spectral norm."""
    wider, condition = norms.near(distance)
    center = torch.tensor([norms.center], dtype=torch.complex128)
    return Spectrum(center, max(wider - norms.radius, 0.0), condition, norms.radius)


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
