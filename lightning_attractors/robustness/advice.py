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


def more_images(others: bool, unsure: bool) -> str:
    """How to have more images count.

    Args:
        others: whether ``max_images`` left some out.
        unsure: whether some are classified correctly, with too little confidence to count.
    """
    ways = ["raise max_images"] * others + ["lower confidence"] * unsure
    return " or ".join(ways) or "measure a split with more images"


def advice_on_fit(fit: LogisticFit, radii: Tensor, sweeps: bool, more: str) -> str:
    """What to do where images count, but R is missing or does not count; empty if it counts.

    Args:
        fit: of the images that count.
        radii: ρ of these, infinite where the attack failed.
        sweeps: whether strengths were given, rather than radii searched for.
        more: how to have more images count.
    """
    if fit.counts:
        return ""
    farther = "larger strengths" if sweeps else "a larger reach of the attack (largest, or steps)"
    withstood = float(radii.isinf().double().mean())
    if withstood > 0.5:
        return f"{farther} would show where the {withstood:.0%} fall that withstood all that was tried"
    if not fit.fitted or not fit.good_fit:
        points = "try more strengths where the accuracy falls" if sweeps else more
        return f"{points}: the curve would have more points"
    return f"it counts from 501 images on: {more}"
