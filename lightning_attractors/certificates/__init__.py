"""What can be proved of a trained model."""

from lightning_attractors.certificates.equilibria import (
    EquilibriumCertificate,
    Point,
    Spectrum,
    certify_equilibria,
    jacobian,
    spectrum,
)

__all__ = ["EquilibriumCertificate", "Point", "Spectrum", "certify_equilibria", "jacobian", "spectrum"]
