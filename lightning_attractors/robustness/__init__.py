"""How a classifier, any classifier, withstands changed images; plain torch."""

from lightning_attractors.robustness.corruptions import CORRUPTIONS, Corruption, add_uniform, replace_pixels
from lightning_attractors.robustness.curves import CorruptionCurve, corruption_curve
from lightning_attractors.robustness.natural import brightness, gaussian_blur, gaussian_noise, resize

__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "CorruptionCurve",
    "add_uniform",
    "brightness",
    "corruption_curve",
    "gaussian_blur",
    "gaussian_noise",
    "replace_pixels",
    "resize",
]
