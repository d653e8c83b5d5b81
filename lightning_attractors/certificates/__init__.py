"""What can be proved of a trained model."""

from lightning_attractors.certificates.equilibria import (
    EquilibriumCertificate,
    Point,
    Spectrum,
    certify_equilibria,
    jacobian,
    spectrum,
)
from lightning_attractors.certificates.intervals import linf_box, margins, propagate
from lightning_attractors.certificates.lipschitz import (
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
from lightning_attractors.certificates.rounding import sums_in_float32
from lightning_attractors.norms import NormName

__all__ = [
    "EquilibriumCertificate",
    "NormName",
    "Point",
    "Spectrum",
    "certified_accuracy",
    "certify_equilibria",
    "finite_time_gain",
    "interval_radii",
    "interval_verified",
    "jacobian",
    "l2_radii",
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
    "spectrum",
    "sums_in_float32",
]
