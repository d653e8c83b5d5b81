"""How a classifier, any classifier, withstands changed images; plain torch."""

from lightning_attractors.robustness.corruptions import CORRUPTIONS, Corruption, add_uniform, replace_pixels
from lightning_attractors.robustness.curves import CorruptionCurve, corruption_curve
from lightning_attractors.robustness.fgsm import fgsm_radii
from lightning_attractors.robustness.logistic import LogisticFit, fit_logistic, relative_accuracy
from lightning_attractors.robustness.masking import MaskingCheck, check_masking
from lightning_attractors.robustness.natural import brightness, gaussian_blur, gaussian_noise, resize
from lightning_attractors.robustness.pgd import pgd_radii
from lightning_attractors.robustness.radii import AdversarialRadii
from lightning_attractors.robustness.spectral import SpectralProbe, robust_fraction

__all__ = [
    "CORRUPTIONS",
    "AdversarialRadii",
    "Corruption",
    "CorruptionCurve",
    "LogisticFit",
    "MaskingCheck",
    "SpectralProbe",
    "add_uniform",
    "brightness",
    "check_masking",
    "corruption_curve",
    "fgsm_radii",
    "fit_logistic",
    "gaussian_blur",
    "gaussian_noise",
    "pgd_radii",
    "relative_accuracy",
    "replace_pixels",
    "resize",
    "robust_fraction",
]
