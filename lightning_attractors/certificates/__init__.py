"""What can be proved of a trained model."""

from lightning_attractors.certificates.equilibria import (
    EquilibriumCertificate,
    Point,
    Spectrum,
    certify_equilibria,
    jacobian,
    spectrum,
)
from lightning_attractors.certificates.gains import finite_time_gain, published_gain
from lightning_attractors.certificates.intervals import margins, propagate

__all__ = [
    "EquilibriumCertificate",
    "Point",
    "Spectrum",
    "certify_equilibria",
    "finite_time_gain",
    "jacobian",
    "margins",
    "propagate",
    "published_gain",
    "spectrum",
]
