r"""Linear stability of equilibria, with bounds on what floating point can hide.

An equilibrium of ẋ = F(x) is asymptotically stable if every eigenvalue of its Jacobian J has a negative
real part, and a fixed point of a step map S if every eigenvalue of ∂S/∂x lies inside the unit circle.

Computed eigenvalues are not eigenvalues. With the computed pairs J V ≈ V Λ and the defect R = J V − V Λ,
V⁻¹ J V = Λ + V⁻¹ R, so by Bauer and Fike every eigenvalue of J lies within ‖V⁻¹ R‖ ≤ ‖R‖_F / σ_min(V) of a
computed one. That radius, with the rounding of R and σ_min added, is the ``error_bound`` here, and a point
counts as stable only if the spectrum stays on the stable side with the bound added.

Nor is a small residual an equilibrium, nor one small Newton step: x² + 10⁻¹⁴ has no zero. With G = F, or
S(x) − x, x* is refined by x ↦ T(x) = x − A G(x), A being the inverse of G's Jacobian, until the steps are
at rounding level. T′ = A (J(x₀) − J(x)) at the point x₀ that is reached, so where ‖A‖ K r ≤ ½ in the ball of
radius r about it, K bounding the change of J, T contracts there; and if its first step is at most r/2, T maps
the ball into itself and G has exactly one zero in it (Banach). The Jacobian at that zero differs from J(x₀)
by at most K r, which moves eigenvalues by at most K r σ_max(V)/σ_min(V): that is added to ``error_bound``.

**What is proved and what is not.** The step from matrix to eigenvalues is proved, for the matrix that
autograd gives. How far that may be from the Jacobian, which widens the bound, and K come from evaluating the
map at random points (:mod:`~lightning_attractors.certificates.differences`): for a map that can only be
evaluated this is strong numerical evidence, no proof. Where it is lacking, nothing is certified.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_attractors.certificates.differences import FINER_WIDTH, Differences, Map, evaluate, look
from lightning_attractors.contracts import name_of
from lightning_attractors.errors import require

# Of 1 + ‖x‖: steps below are rounding, and the ball in which an equilibrium is looked for is no smaller.
_ROUNDING_LEVEL = 1e-12
_MOST_STEPS = 8


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

    def of_matrices_within(self, distance: float) -> Spectrum:
        """The same for every matrix within a distance, in the spectral norm, of this one's."""
        wider = self.error_bound + self.condition * distance
        return replace(self, error_bound=math.inf if math.isnan(wider) else wider)


@dataclass(frozen=True)
class Point:
    """One map at one point.

    Attributes:
        residual: ‖F(x*)‖₂ of a flow, ‖S(x*) − x*‖₂ of a step map.
        distance: ‖x − x*‖₂ for the point x that Newton's method reaches from x*; may be infinite.
        is_fixed: whether that distance is within the tolerance and the residual, as far as evaluations
            show, vanishes at one point near it.
        spectrum: spectrum of the Jacobian of F or S there; the bound covers where the equilibrium may be.
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
        """Whether the flow is certified stable here."""
        spectrum = self.flow.spectrum
        return self.flow.is_fixed and spectrum.abscissa + spectrum.error_bound < 0

    @property
    def step_is_stable(self) -> bool:
        """Whether the step map is certified stable here; true where there is none."""
        if self.step is None:
            return True
        return self.step.is_fixed and self.step.spectrum.radius + self.step.spectrum.error_bound < 1

    @property
    def stable(self) -> bool:
        """Whether the flow and, where there is one, the step map are certified stable here."""
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
    """Jacobian (N, N) at x (N,), float64, of a map that takes batches (B, N).

    It is nan where the differences of the map are too coarse to check it.

    Raises:
        SettingError: if the map hides its derivative from autograd or computes in lower precision, found by
            comparing with difference quotients, or does not give float64 of its states' shape.
    """
    return _checked_jacobian(function, x, name_of(function))[0]


def _checked_jacobian(function: Map, x: Tensor, setting: str) -> tuple[Tensor, Differences]:
    def single(state: Tensor) -> Tensor:
        return function(state.unsqueeze(0)).squeeze(0)

    seen = look(function, x, setting)
    derivative: Tensor = torch.func.jacrev(single)(x).detach()
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


def check_maps(equilibria: Tensor, vector_field: Map, step_map: Map | None = None) -> None:
    """Refuse what :func:`certify_equilibria` cannot work with, by trying it on one equilibrium.

    Raises:
        SettingError: as there.
    """
    _check_points(equilibria)
    _checked_jacobian(vector_field, equilibria[0], "vector_field")
    if step_map is not None:
        _checked_jacobian(step_map, equilibria[0], "step_map")


def _check_points(equilibria: Tensor) -> None:
    shape = tuple(equilibria.shape)
    valid = "must have shape (K, N), K and N at least 1"
    require(len(shape) == 2 and math.prod(shape) > 0, "equilibria", shape, valid)
    require(equilibria.dtype == torch.float64, "equilibria", equilibria.dtype, "must be float64")


def certify_equilibria(
    equilibria: Tensor, vector_field: Map, step_map: Map | None = None, tolerance: float = 1e-6
) -> list[EquilibriumCertificate]:
    """Certify each of the equilibria of a flow, and of the step map that integrates it.

    Args:
        equilibria: equilibria x*, shape (K, N), float64, K at least 1.
        vector_field: F, from states (B, N) to states (B, N), in float64.
        step_map: the discrete map that really runs, same shapes.
        tolerance: x* may be this far, times 1 + ‖x*‖₂, from the equilibrium.

    Returns:
        One certificate per equilibrium, in their order.

    Raises:
        SettingError: if the equilibria have another shape, or a map hides its derivative from autograd,
            computes in lower precision or does not give what its states are.
    """
    _check_points(equilibria)
    known = _Known()
    certificates = []
    for x in equilibria:
        flow = _examine(vector_field, x, "vector_field", tolerance, known)
        step = None
        if step_map is not None:
            step = _examine(step_map, x, "step_map", tolerance, known)
        certificates.append(EquilibriumCertificate(flow, step))
    return certificates


class _Known:
    """Spectra and inverses of earlier matrices: attractors often share their Jacobian to the bit."""

    def __init__(self) -> None:
        self._spectra: list[tuple[Tensor, Spectrum]] = []
        self._inverses: list[tuple[Tensor, Tensor]] = []

    def spectrum(self, matrix: Tensor) -> Spectrum:
        for earlier, result in self._spectra:
            if torch.equal(earlier, matrix):
                return result
        self._spectra.append((matrix, spectrum(matrix)))
        return self._spectra[-1][1]

    def inverse(self, matrix: Tensor) -> Tensor:
        """The inverse; nan where there is none."""
        for earlier, result in self._inverses:
            if torch.equal(earlier, matrix):
                return result
        result, failed = torch.linalg.inv_ex(matrix)
        result = torch.full_like(matrix, torch.nan) if bool(failed) else result
        self._inverses.append((matrix, result))
        return result


def _examine(function: Map, x: Tensor, setting: str, tolerance: float, known: _Known) -> Point:
    """One map at one point, as the module's docstring says."""
    size = float(torch.linalg.vector_norm(x))
    if not math.isfinite(size):
        nothing = spectrum(x.new_full((len(x), len(x)), torch.nan))
        return Point(math.nan, math.inf, False, nothing)
    # What has to vanish is F of a flow, S(x) − x of a step map.
    moved = 0.0 if setting == "vector_field" else 1.0
    identity = moved * torch.eye(len(x), dtype=x.dtype, device=x.device)
    level = _ROUNDING_LEVEL * (1 + size)
    allowed = tolerance * (1 + size)

    matrix, seen = _checked_jacobian(function, x, setting)
    residual = seen.value - moved * x
    inverse = known.inverse(matrix - identity)
    step = inverse @ residual
    reached, length = x, float(torch.linalg.vector_norm(step))
    for _ in range(_MOST_STEPS):
        if not level < length <= allowed:
            break
        reached = reached - step
        step = inverse @ (evaluate(function, reached[None], setting)[0] - moved * reached)
        length = float(torch.linalg.vector_norm(step))
    distance = float(torch.linalg.vector_norm(reached - x)) + length
    distance = math.inf if math.isnan(distance) else distance
    if reached is not x and distance <= allowed:
        # What moves by rounding alone stays: exact zeros keep multiple eigenvalues, hence good eigenvectors.
        reached = torch.where((reached - x).abs() > level, reached, x)
        matrix, seen = _checked_jacobian(function, reached, setting)
        inverse = known.inverse(matrix - identity)
        length = float(torch.linalg.vector_norm(inverse @ (seen.value - moved * reached)))

    rounding = float(torch.linalg.vector_norm(inverse.abs() @ seen.rounding_of(matrix)))
    radius = 2 * (length + rounding) + level
    change = seen.curvature * radius
    contracts = float(torch.linalg.matrix_norm(inverse)) * change <= 0.5
    found = known.spectrum(matrix).of_matrices_within(change + seen.discrepancy(matrix))
    fixed = distance <= allowed < math.inf and contracts
    return Point(float(torch.linalg.vector_norm(residual)), distance, fixed, found)
