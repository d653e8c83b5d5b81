"""How a classifier, any classifier, withstands changed images; plain torch."""

from lightning_attractors.robustness.corruptions import CORRUPTIONS, Corruption, add_uniform, replace_pixels
from lightning_attractors.robustness.curves import CorruptionCurve, corruption_curve

__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "CorruptionCurve",
    "add_uniform",
    "corruption_curve",
    "replace_pixels",
]
