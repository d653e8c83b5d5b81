"""Adversarial radii: how far in L∞ an image must be moved before a classifier gets it wrong."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AdversarialRadii:
    """What an attack found of every image.

    Attributes:
        radii: ρ, shape (N,), float64: 0 where the image was wrong to begin with, infinite where the attack
            failed.
        adversarial: the images (N, C, H, W) that are misclassified at ρ; where the attack failed, the ones it
            ended with; where the image was wrong, the image.
        steps: how many steps were taken to get there, shape (N,), int64; 0 where the image was wrong, and
            −1 where the attack failed.
        gradient_vanished: whether the attack met a gradient that is 0 in every pixel, shape (N,), bool. Such
            images are not robust but masked: a large ρ says nothing of them.
    """

    radii: Tensor
    adversarial: Tensor
    steps: Tensor
    gradient_vanished: Tensor

    @property
    def masked(self) -> int:
        """How many images met a vanishing gradient."""
        return int(self.gradient_vanished.sum())
