"""How a classifier, any classifier, withstands changed images; plain torch."""

from lightning_attractors.robustness.attacks import (
    FGSM,
    PGD,
    AdversarialRadii,
    GradientAttack,
    fgsm_radii,
    pgd_radii,
    register_attack,
)
from lightning_attractors.robustness.corruptions import (
    CORRUPTIONS,
    Corruption,
    add_uniform,
    brightness,
    gaussian_blur,
    gaussian_noise,
    replace_pixels,
    resize,
)
from lightning_attractors.robustness.curves import CorruptionCurve, corruption_curve
from lightning_attractors.robustness.files import write_report
from lightning_attractors.robustness.logistic import (
    LogisticFit,
    difference_interval,
    fit_logistic,
    relative_accuracy,
)
from lightning_attractors.robustness.masking import MaskingCheck, check_masking
from lightning_attractors.robustness.measure import Certificate, MeasureSettings, Share, measure
from lightning_attractors.robustness.report import (
    AttackReport,
    BrokenCertificateError,
    CertificateReport,
    Report,
    Result,
)
from lightning_attractors.robustness.spectral import SpectralProbe, robust_fraction

__all__ = [
    "CORRUPTIONS",
    "FGSM",
    "PGD",
    "AdversarialRadii",
    "AttackReport",
    "BrokenCertificateError",
    "Certificate",
    "CertificateReport",
    "Corruption",
    "CorruptionCurve",
    "GradientAttack",
    "LogisticFit",
    "MaskingCheck",
    "MeasureSettings",
    "Report",
    "Result",
    "Share",
    "SpectralProbe",
    "add_uniform",
    "brightness",
    "check_masking",
    "corruption_curve",
    "difference_interval",
    "fgsm_radii",
    "fit_logistic",
    "gaussian_blur",
    "gaussian_noise",
    "measure",
    "pgd_radii",
    "register_attack",
    "relative_accuracy",
    "replace_pixels",
    "resize",
    "robust_fraction",
    "write_report",
]
