"""What randomised smoothing has found, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_attractors.norms import NormName
from lightning_attractors.robustness.images import CleanImages
from lightning_attractors.robustness.smoothing import ABSTAINED, Smoothing, Vote, radii_of
from lightning_attractors.robustness.summaries import json_ready, median, share, spread

# What the files are called, where those of attacks have the attacks' names.
SMOOTHED = "smoothed"
# The usual ones, as far as radii can go.
_STRENGTHS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class SmoothedImages(CleanImages):
    """Images with their smoothed classes, one row each.

    The columns are those of :class:`CleanImages`, of the classifier itself, and of
    :class:`~lightning_attractors.robustness.SmoothedRadii`.
    """

    classes: Tensor
    counts: Tensor
    lower: Tensor
    radii: Tensor

    @classmethod
    def of(cls, clean: CleanImages, votes: Sequence[Vote], settings: Smoothing) -> SmoothedImages:
        """The rows of one batch."""
        return cls(**vars(clean), **radii_of(list(votes), settings)._asdict())

    @property
    def right(self) -> Tensor:
        """Whether the smoothed class is the label, shape (N,), bool; not where it abstains."""
        return self.classes == self.labels


@dataclass(frozen=True)
class SmoothedReport:
    """What is known of the smoothed classifier, with probability 1 − α of every image.

    Attributes:
        images: all of them, at least one.
        settings: of the smoothing.
        seed: of the noise.
        norm: that of the radii that are certified of the classifier itself, if there are any.
        recalled: how many images were known from a measurement that was interrupted.
        seconds: how long the others took.
    """

    images: SmoothedImages
    settings: Smoothing
    seed: int
    norm: NormName = "linf"
    recalled: int = 0
    seconds: float = 0.0
    name = SMOOTHED

    @property
    def sentence(self) -> str:
        """What the radii mean, in words."""
        sigma, sure = self.settings.sigma, 1 - self.settings.alpha
        return (
            f"Every radius holds with probability 1 - alpha = {sure:g} for its image, over the noise drawn. "
            f"It is of the smoothed classifier, whose class is the one that the classifier gives most often "
            f"of the image with N(0, {sigma:g}²) noise, unclipped."
        )

    @property
    def strengths(self) -> Tensor:
        """Radii from 0 to the largest of an image that is right, shape (101,), float64."""
        return spread(self.images.radii[self.images.right])

    def accuracy(self, strengths: Tensor) -> Tensor:
        """The share of all images that are right and stay so within each of the strengths (S,), float64."""
        images = self.images
        return share(images.right & (images.radii >= strengths.double()[:, None]))

    def itself(self, strengths: Tensor) -> Tensor | None:
        """The same as certified of the classifier itself; None if it is not, or not in L2."""
        images = self.images
        if not images.has_certificate or self.norm != "l2":
            return None
        return share(images.correct & (images.certified >= strengths.double()[:, None]))

    def summary(self, settings: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
        """The certificate as JSON: ``average_radius`` is of all images, those that are wrong with 0.

        Args:
            settings: of the measurement.
            about: what else is worth knowing: which classifier it was.
        """
        images = self.images
        radii = torch.where(images.right, images.radii, 0.0)
        usual = [strength for strength in _STRENGTHS if strength <= self.settings.reach]
        shares = self.accuracy(torch.tensor(usual, dtype=torch.float64)).tolist()
        return json_ready(
            {
                "norm": "l2",
                "statement": self.sentence,
                "accuracy": float(images.right.double().mean()),
                "median_radius": median(radii),
                "average_radius": float(radii.mean()),
                "largest_possible_radius": self.settings.reach,
                "certified_accuracy": {f"{r:g}": value for r, value in zip(usual, shares, strict=True)},
                "images": {
                    "all": len(images),
                    "correct": int(images.right.sum()),
                    "abstained": int((images.classes == ABSTAINED).sum()),
                    "recalled": self.recalled,
                },
                "smoothing": {**asdict(self.settings), "seed": self.seed},
                "settings": settings,
                **about,
            }
        )

    def line(self, summary: Mapping[str, Any]) -> str:
        """The summary in one line."""
        images = summary["images"]
        shares = ", ".join(f"{value:.4g} at {r}" for r, value in summary["certified_accuracy"].items())
        return (
            f"robustness  {self.name}  {self.seconds:.1f} s  {images['all']} images, {images['recalled']} of "
            f"them known before, {images['abstained']} abstentions  certified in L2 {shares}"
        )
