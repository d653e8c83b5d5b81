"""What would give an R where there is none, or one that counts."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_attractors.robustness.logistic import LogisticFit


def advice_on_confidence(correct: Tensor, confidence: Tensor) -> str:
    """What to do where no image counts.

    Args:
        correct: which images are classified correctly, shape (N,), bool.
        confidence: of the predicted classes, shape (N,).
    """
    sure = confidence[correct]
    if not len(sure):
        return "train longer, or see whether the images are as the model wants them (mean, std)"
    half = math.floor(100 * float(sure.median())) / 100
    return f"confidence: {half:g} would count half of the {len(sure)} correct images"


def advice_on_fit(fit: LogisticFit, radii: Tensor, sweeps: bool) -> str:
    """What to do where images count, but R is missing or does not count; empty if it counts.

    Args:
        fit: of the images that count.
        radii: ρ of these, infinite where the attack failed.
        sweeps: whether strengths were given, rather than radii searched for.
    """
    if fit.counts:
        return ""
    farther = "larger strengths" if sweeps else "a larger reach of the attack (largest, or steps)"
    withstood = float(radii.isinf().double().mean())
    if withstood > 0.5:
        return f"{farther} would show where the {withstood:.0%} fall that withstood all that was tried"
    if not fit.fitted or not fit.good_fit:
        more = "more strengths where the accuracy falls" if sweeps else "max_images, or a lower confidence"
        return f"{more}: the curve would have more points"
    return "it counts from 501 images on: raise max_images, or lower confidence"
