r"""Linear stability of equilibria, with bounds on what floating point can hide.

An equilibrium of ẋ = F(x) is asymptotically stable if every eigenvalue of its Jacobian J has a negative
real part, and a fixed point of a step map S if every eigenvalue of ∂S/∂x lies inside the unit circle.

Where they are is known up to an ``error_bound`` (:mod:`~lightning_attractors.certificates.spectra`), and a
point counts as stable only if the spectrum stays on the stable side with that added. Of many nodes it is a
disc that holds them, found without computing them, wherever that disc lies on the stable side.

Nor is a small residual an equilibrium, nor one small Newton step: x² + 10⁻¹⁴ has no zero. With G = F, or
S(x) − x, x* is refined by x ↦ T(x) = x − A G(x), A being the inverse of G's Jacobian, until the steps are
at rounding level. With M = A⁻¹, T′ = A (M − J(x)), and ‖M − J(x)‖ ≤ d in the ball of radius r about the point
x₀ that is reached, d = K r + ‖M − J(x₀)‖, K bounding the change of J. So where ‖A‖ d ≤ ½, T contracts there;
and if its first step is at most r/2, T maps the ball into itself and G has exactly one zero in it (Banach).
The Jacobian at that zero moves eigenvalues of M by at most d ``condition``: that is added to ``error_bound``.

**What is proved and what is not.** The step from matrix to eigenvalues is proved, for the matrix that
autograd gives, or of many nodes for one that agrees with it. How far that may be from the Jacobian, which
widens the bound, and K come from evaluating the map at random points
(:mod:`~lightning_attractors.certificates.differences`): for a map that can only be evaluated this is strong
numerical evidence, no proof. Where it is lacking, nothing is certified.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.certificates.differences import Map, evaluate
from lightning_attractors.certificates.linearizations import Kind, Linearizations, checked_jacobian
from lightning_attractors.certificates.spectra import Spectrum, spectrum
from lightning_attractors.errors import require
from lightning_attractors.linalg import MOST_NODES_BY_EIGENVALUES

# Of 1 + ‖x‖: steps below are rounding, and the ball in which an equilibrium is looked for is no smaller.
_ROUNDING_LEVEL = 1e-12
_MOST_STEPS = 8


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


def check_maps(equilibria: Tensor, vector_field: Map, step_map: Map | None = None) -> None:
    """Refuse what :func:`certify_equilibria` cannot work with, by trying it on one equilibrium.

    Raises:
        SettingError: as there.
    """
    _check_points(equilibria)
    checked_jacobian(vector_field, equilibria[0], "vector_field")
    if step_map is not None:
        checked_jacobian(step_map, equilibria[0], "step_map")


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
    known = Linearizations()
    maps: list[tuple[Kind, Map]] = [("vector_field", vector_field)]
    maps += [] if step_map is None else [("step_map", step_map)]
    if equilibria.shape[1] > MOST_NODES_BY_EIGENVALUES:
        maps.reverse()  # what is known of a step of Euler's method serves the flow
    certificates = []
    for x in equilibria:
        points = {kind: _examine(function, x, kind, tolerance, known) for kind, function in maps}
        certificates.append(EquilibriumCertificate(points["vector_field"], points.get("step_map")))
    return certificates


def _examine(function: Map, x: Tensor, setting: Kind, tolerance: float, known: Linearizations) -> Point:
    """One map at one point, as the module's docstring says."""
    size = float(torch.linalg.vector_norm(x))
    if not math.isfinite(size):
        nothing = spectrum(x.new_full((len(x), len(x)), torch.nan))
        return Point(math.nan, math.inf, False, nothing)
    # What has to vanish is F of a flow, S(x) − x of a step map.
    moved = 0.0 if setting == "vector_field" else 1.0
    level = _ROUNDING_LEVEL * (1 + size)
    allowed = tolerance * (1 + size)

    local, seen = known.at(function, x, setting)
    residual = seen.value - moved * x
    step = local.inverse @ residual
    reached, length = x, float(torch.linalg.vector_norm(step))
    for _ in range(_MOST_STEPS):
        if not level < length <= allowed:
            break
        reached = reached - step
        step = local.inverse @ (evaluate(function, reached[None], setting)[0] - moved * reached)
        length = float(torch.linalg.vector_norm(step))
    distance = float(torch.linalg.vector_norm(reached - x)) + length
    distance = math.inf if math.isnan(distance) else distance
    if reached is not x and distance <= allowed:
        # What moves by rounding alone stays: exact zeros keep multiple eigenvalues, hence good eigenvectors.
        reached = torch.where((reached - x).abs() > level, reached, x)
        local, seen = known.at(function, reached, setting)
        length = float(torch.linalg.vector_norm(local.inverse @ (seen.value - moved * reached)))

    rounding = float(torch.linalg.vector_norm(local.inverse.abs() @ seen.rounding_of(local.matrix)))
    radius = 2 * (length + rounding) + level
    # of the Jacobian in the ball from the matrix, which is that of autograd or one that agrees with it
    change = seen.curvature * radius + seen.discrepancy(local.matrix)
    contracts = float(torch.linalg.matrix_norm(local.inverse)) * change <= 0.5
    found = local.spectrum(change)
    fixed = distance <= allowed < math.inf and contracts
    return Point(float(torch.linalg.vector_norm(residual)), distance, fixed, found)
