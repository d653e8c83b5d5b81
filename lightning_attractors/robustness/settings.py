"""What a measurement is told: how to measure, what is certified, and whose share it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_attractors.errors import require
from lightning_attractors.norms import NormName
from lightning_attractors.robustness.smoothing import Smoothing


@dataclass(frozen=True)
class MeasureSettings:
    """How a robustness is measured.

    Args:
        confidence: confidence from which on a correctly classified image counts, in [0, 1].
        max_images: how many images are attacked at most, at least 1; all of them with None.
        batch_size: how many images are attacked together, at least 1.
        seed: of random attacks, at least 0.
        masking: whether to check for masked gradients.
        smoothing: how the classifier is smoothed, for L2 radii that hold with high probability; not with
            None.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    confidence: float = 0.8
    max_images: int | None = 1000
    batch_size: int = 256
    seed: int = 0
    masking: bool = True
    smoothing: Smoothing | None = None

    def __post_init__(self) -> None:
        require(0 <= self.confidence <= 1, "confidence", self.confidence, "must be from 0 to 1")
        fits = self.max_images is None or self.max_images >= 1
        require(fits, "max_images", self.max_images, "must be at least 1, or null")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "must be at least 1")
        require(self.seed >= 0, "seed", self.seed, "must be at least 0")


@dataclass(frozen=True)
class Certificate:
    """What is claimed to be proved of a classifier.

    Attributes:
        radii: takes images (B, C, H, W) in [0, 1] and labels (B,), gives the radii (B,) within which the
            images keep their labels; None if nothing is claimed. Its :class:`SettingError` is a reason why
            there are none.
        norm: that of the radii.
        box: the ends that all pixels of an image lie between for the radii to speak of it: attacks that go
            farther do not count against them.
        refused: why nothing is claimed, if there is a reason.
    """

    radii: Callable[[Tensor, Tensor], Tensor] | None = None
    norm: NormName = "linf"
    refused: str = ""
    box: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Share:
    """What one of several processes measures: all see all batches, and each attacks some of them.

    Attributes:
        rank: which process this is, from 0.
        of: how many there are.
        gather: does something in every process, and gives what all of them found, in the order of the ranks.
    """

    rank: int = 0
    of: int = 1
    gather: Callable[[Callable[[], Any]], list[Any]] = lambda work: [work()]
