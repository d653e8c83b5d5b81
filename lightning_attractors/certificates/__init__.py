"""What can be proved of a trained model."""

from lightning_attractors.certificates.equilibria import (
    EquilibriumCertificate,
    Spectrum,
    certify_equilibria,
    jacobian,
    spectrum,
)

__all__ = ["EquilibriumCertificate", "Spectrum", "certify_equilibria", "jacobian", "spectrum"]
