"""Radii that hold with high probability, for any classifier: randomised smoothing (Cohen et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from scipy.stats import beta, norm
from torch import Tensor

from lightning_attractors.errors import require, require_sensible
from lightning_attractors.random import keyed_generator
from lightning_attractors.robustness.attacks import Logits

# The class of an image whose smoothed class is not known with the probability that was asked for.
ABSTAINED = -1
# Noise comes in blocks of so many images, whatever the batches are; the stream is nobody else's.
_BLOCK, _STREAM = 50, int.from_bytes(b"smoothing", "big")


@dataclass(frozen=True)
class Smoothing:
    """How a classifier is smoothed, and how surely.

    Args:
        sigma: standard deviation σ of the normal noise, above 0, of images in [0, 1]. Noisy images leave
            [0, 1]: nothing is clipped, as the proof is about normal noise.
        samples: noisy images per image that count for its radius, at least so many that a radius is above 0
            where all of them agree.
        alpha: the probability at most of a radius that does not hold, for each image, in (0, 1).
        selection: noisy images per image, other ones, that choose its class, at least 1.
        batch_size: noisy images that are classified together at most, at least 1.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    sigma: float
    samples: int = 1000
    alpha: float = 0.001
    selection: int = 100
    batch_size: int = 550

    def __post_init__(self) -> None:
        require_sensible("smoothing.sigma", self.sigma)
        require(self.samples >= 1, "smoothing.samples", self.samples, "must be at least 1")
        require(0 < self.alpha < 1, "smoothing.alpha", self.alpha, "must be above 0 and below 1")
        require(self.selection >= 1, "smoothing.selection", self.selection, "must be at least 1")
        require(self.batch_size >= 1, "smoothing.batch_size", self.batch_size, "must be at least 1")
        fewest = math.floor(-math.log2(self.alpha)) + 1
        valid = f"must be at least {fewest} with an alpha of {self.alpha:g}, or no radius could be above 0"
        require(self.samples >= fewest, "smoothing.samples", self.samples, valid)

    def key(self, seed: int) -> dict[str, Any]:
        """What the votes on an image depend on, besides it and the classifier."""
        return {"sigma": self.sigma, "selection": self.selection, "samples": self.samples, "seed": seed}

    @property
    def reach(self) -> float:
        """The largest radius that there can be, where all samples agree."""
        return self.sigma * float(norm.ppf(lower_bound(self.samples, self.samples, self.alpha)))


class Vote(NamedTuple):
    """The class that most of the first noisy images have, and how many of the others have it.

    The class is ``ABSTAINED`` where all logits were nan.
    """

    chosen: int
    agreeing: int


class VoteMemory:
    """What an interrupted measurement knew already; this one remembers nothing.

    A vote is known by the image and its place among all images.

    Attributes:
        recalled: how many votes were known.
    """

    recalled = 0

    def begin(self, key: Mapping[str, Any]) -> None:
        """Recall only votes that were found with this key: what they depend on besides the images."""

    def recall(self, index: int, image: Tensor) -> Vote | None:
        """The vote on an image (C, H, W), if it is known."""

    def keep(self, index: int, image: Tensor, vote: Vote) -> None:
        """Remember a vote."""

    def end(self) -> None:
        """Nothing more comes, be it for an interruption."""


class SmoothedRadii(NamedTuple):
    """What is known of the smoothed classes of images, each of shape (B,).

    Attributes:
        classes: int64; −1 where it abstains.
        counts: of the samples, how many have the class that was chosen, int64.
        lower: the lower bound of the probability of that class, float64.
        radii: in L2, float64; 0 where it abstains.
    """

    classes: Tensor
    counts: Tensor
    lower: Tensor
    radii: Tensor


def lower_bound(count: int, samples: int, alpha: float) -> float:
    """The exact lower bound of Clopper and Pearson: of a probability, with an error of at most ``alpha``.

    Args:
        count: how often it happened, from 0 to ``samples``.
        samples: how often it could have, at least 1.
        alpha: the probability at most that the bound is above the true probability, in (0, 1).

    Example:
        >>> round(lower_bound(990, 1000, 0.001), 4)
        0.976
    """
    return float(beta.ppf(alpha, count, samples - count + 1)) if count else 0.0


@torch.no_grad()
def vote(logits_fn: Logits, image: Tensor, index: int, settings: Smoothing, seed: int) -> Vote:
    """What a classifier says of an image with noise, over and over.

    Args:
        logits_fn: gives logits (B, K) of images (B, C, H, W), also of such that leave [0, 1].
        image: (C, H, W), on the device of the classifier.
        index: of the image; with the seed it determines the noise, whatever the batches are, on a kind of
            device.
        settings: of the smoothing.
        seed: at least 0.
    """
    total = settings.selection + settings.samples
    together = max(1, settings.batch_size // _BLOCK)
    classes = []
    blocks = range(math.ceil(total / _BLOCK))
    for first in blocks[::together]:
        noise = [_noise(image, seed, index, block) for block in blocks[first : first + together]]
        noisy = torch.cat(noise)[: total - first * _BLOCK].mul_(settings.sigma).add_(image)
        classes += [_classes(logits_fn(part)) for part in noisy.split(settings.batch_size)]
    found = torch.cat(classes).cpu()
    first_ones = found[: settings.selection]
    known = first_ones[first_ones != ABSTAINED]
    if not len(known):
        return Vote(ABSTAINED, 0)
    chosen = int(known.bincount().argmax())
    return Vote(chosen, int((found[settings.selection :] == chosen).sum()))


def radii_of(votes: list[Vote], settings: Smoothing) -> SmoothedRadii:
    """Classes and radii: σ Φ⁻¹(p) with p the lower bound of the class's probability, where p > ½."""
    lower = [lower_bound(count, settings.samples, settings.alpha) for _, count in votes]
    sure = [bound > 0.5 for bound in lower]
    radii = [settings.sigma * float(norm.ppf(p)) if ok else 0.0 for p, ok in zip(lower, sure, strict=True)]
    chosen = [of if ok else ABSTAINED for (of, _), ok in zip(votes, sure, strict=True)]
    return SmoothedRadii(
        torch.tensor(chosen, dtype=torch.int64),
        torch.tensor([count for _, count in votes], dtype=torch.int64),
        torch.tensor(lower, dtype=torch.float64),
        torch.tensor(radii, dtype=torch.float64),
    )


def smoothed_radii(logits_fn: Logits, images: Tensor, settings: Smoothing, seed: int = 0) -> SmoothedRadii:
    """The smoothed classes of images, and the L2 radii within which they stay.

    The smoothed classifier is another one than ``logits_fn``: its class is the one that ``logits_fn`` gives
    most often of the image with normal noise. Each radius holds with probability 1 − α on its own, over the
    noise that was drawn, which is taken for exactly normal; n radii hold all at once with 1 − nα. Noise that
    the classifier has of its own is smoothed with it. Logits that are nan count against the class.

    Args:
        logits_fn: gives logits (B, K) of images (B, C, H, W), also of such that leave [0, 1], each image's a
            function of it alone; in evaluation mode.
        images: (B, C, H, W) in [0, 1], floating point, on the device of the classifier.
        settings: of the smoothing.
        seed: at least 0; with an image's place among the images it determines its noise.

    Raises:
        SettingError: if there are no images.

    Example:
        >>> def brighter_than_half(images):
        ...     mean = images.mean(dim=(1, 2, 3))
        ...     return torch.stack([0.5 - mean, mean - 0.5], dim=1)
        >>> images = torch.tensor([0.4, 0.5, 0.6]).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
        >>> found = smoothed_radii(brighter_than_half, images, Smoothing(sigma=0.25))
        >>> found.classes.tolist()
        [0, -1, 1]
        >>> bool(found.radii[0] < 4 * 0.1)  # which is how far the true boundary is
        True
    """
    require(len(images) > 0, "images", tuple(images.shape), "must be at least one")
    votes = [vote(logits_fn, image, index, settings, seed) for index, image in enumerate(images)]
    return radii_of(votes, settings)


def _noise(image: Tensor, seed: int, index: int, block: int) -> Tensor:
    generator = keyed_generator(image.device, _STREAM, seed, index, block)
    shape = (_BLOCK, *image.shape)
    return torch.randn(shape, generator=generator, dtype=image.dtype, device=image.device)


def _classes(logits: Tensor) -> Tensor:
    return torch.where(logits.isnan().any(dim=1), ABSTAINED, logits.argmax(dim=1))
