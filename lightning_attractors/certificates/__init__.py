"""What can be proved of a trained model."""

# They enter the rules of the layers that are known from the start.
from lightning_attractors.certificates import interval_rules, l2_rules  # noqa: F401
from lightning_attractors.certificates.equilibria import (
    EquilibriumCertificate,
    Point,
    Spectrum,
    certify_equilibria,
    check_maps,
    jacobian,
    spectrum,
)
from lightning_attractors.certificates.float32_errors import Evaluation
from lightning_attractors.certificates.guards import sums_in_float32
from lightning_attractors.certificates.intervals import linf_box, margins, propagate
from lightning_attractors.certificates.lipschitz import (
    evaluate_in_float32,
    l2_radii,
    lipschitz_bounds,
    margin_radii,
    pair_constants,
    pair_radii,
)
from lightning_attractors.certificates.nmode_gain import finite_time_gain, published_gain
from lightning_attractors.certificates.radii import (
    certified_accuracy,
    interval_radii,
    interval_verified,
    lipschitz_radii,
    margin_constants,
)
from lightning_attractors.certificates.rounding import largest_size, rounding_error
from lightning_attractors.certificates.rules import isometry, register_rule
from lightning_attractors.norms import NormName

__all__ = [
    "EquilibriumCertificate",
    "Evaluation",
    "NormName",
    "Point",
    "Spectrum",
    "certified_accuracy",
    "certify_equilibria",
    "check_maps",
    "evaluate_in_float32",
    "finite_time_gain",
    "interval_radii",
    "interval_verified",
    "isometry",
    "jacobian",
    "l2_radii",
    "largest_size",
    "linf_box",
    "lipschitz_bounds",
    "lipschitz_radii",
    "margin_constants",
    "margin_radii",
    "margins",
    "pair_constants",
    "pair_radii",
    "propagate",
    "published_gain",
    "register_rule",
    "rounding_error",
    "spectrum",
    "sums_in_float32",
]
