"""What is known of every image: before an attack, and after it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from lightning_attractors.errors import require
from lightning_attractors.robustness.attacks import Outcome

Rows = TypeVar("Rows", bound="CleanImages")


class Batch(NamedTuple):
    """Images (B, C, H, W) and labels (B,), on the CPU, with their number among all batches."""

    number: int
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class CleanImages:
    """What is known of images before they are attacked, one row each, all on the CPU.

    Attributes:
        index: places of the images among all, shape (B,), int64.
        labels: (B,), int64.
        confidence: softmax of the predicted class, shape (B,), float64.
        correct: whether the prediction is the label, shape (B,), bool.
        certified: certified radii, shape (B,), float64, nan without a certificate.
    """

    index: Tensor
    labels: Tensor
    confidence: Tensor
    correct: Tensor
    certified: Tensor

    @classmethod
    def joined(cls: type[Rows], parts: Sequence[Rows]) -> Rows:
        """All rows, by ascending index."""
        columns = {field.name: torch.cat([getattr(p, field.name) for p in parts]) for field in fields(cls)}
        order = columns["index"].argsort()
        return cls(**{name: column[order] for name, column in columns.items()})

    def __len__(self) -> int:
        return len(self.index)

    @property
    def has_certificate(self) -> bool:
        """Whether certified radii are known."""
        return not bool(self.certified.isnan().any())

    def confident(self, confidence: float) -> Tensor:
        """Which images count: correct, and at least so confident; shape (N,), bool."""
        return self.correct & (self.confidence >= confidence)


@dataclass(frozen=True)
class AttackedImages(CleanImages):
    """Images before an attack and after it, one row each.

    The columns are those of :class:`CleanImages` and of
    :class:`~lightning_attractors.robustness.attacks.Outcome`, whose distances are in the norm of the
    certified radii and of images in their box; ``withstood`` is (N, 0) after a search.
    """

    radii: Tensor
    steps: Tensor
    distances: Tensor
    bounded: Tensor
    vanished: Tensor
    withstood: Tensor

    @classmethod
    def of(cls, clean: CleanImages, outcome: Outcome) -> AttackedImages:
        """The rows of one batch, on the CPU."""
        withstood = outcome.withstood
        if withstood is None:
            withstood = torch.empty(len(clean), 0, dtype=torch.bool)
        found = ("radii", "steps", "distances", "bounded", "vanished")
        return cls(
            **{field.name: getattr(clean, field.name) for field in fields(CleanImages)},
            **{name: getattr(outcome, name).cpu() for name in found},
            withstood=withstood.cpu(),
        )

    def breaches(self) -> Tensor:
        """Indices of images that were misclassified within their certified radius and its box, shape (M,)."""
        inside = self.correct & (self.certified > 0) & (self.distances <= self.certified)
        return self.index[inside]


@dataclass(frozen=True)
class Example:
    """An image that an attack has broken, with what the classifier says of it before and after.

    Attributes:
        index: its place among all images.
        image: (C, H, W).
        attacked: (C, H, W).
        before: predicted class and confidence.
        after: the same of the attacked image.
    """

    index: int
    image: Tensor
    attacked: Tensor
    before: tuple[int, float]
    after: tuple[int, float]


class FirstImages:
    """So many images of some batches at most, with their labels, on the CPU.

    Attributes:
        others: whether there are more than these; known when they have been passed over.

    Raises:
        SettingError: when they are passed over, if a batch is no pair of tensors.
    """

    def __init__(self, batches: Iterable[tuple[Tensor, Tensor]], most: int | None) -> None:
        self.batches, self.most = batches, most
        self.others = False

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        left = sys.maxsize if self.most is None else self.most
        for batch in self.batches:
            pair = isinstance(batch, tuple | list) and [isinstance(part, Tensor) for part in batch]
            valid = "must be pairs of images (B, C, H, W) and labels (B,)"
            require(pair == [True, True], "batches", type(batch).__name__, valid)
            images, labels = (part.detach().cpu() for part in batch)
            if left:
                yield images[:left], labels[:left].long()
            # where the last batch ends with the last image, the next one tells
            self.others = len(images) > left
            if self.others:
                return
            left -= len(images)


def rebatched(batches: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[Batch]:
    """Images and labels in batches of one size, the last one excepted."""
    number, kept = 0, list[tuple[Tensor, Tensor]]()
    for batch in batches:
        kept.append(batch)
        while sum(len(part) for part, _ in kept) >= size:
            images, labels = (torch.cat(parts) for parts in zip(*kept, strict=True))
            yield Batch(number, images[:size], labels[:size])
            number += 1
            kept = [(images[size:], labels[size:])] if len(images) > size else []
    if kept:
        yield Batch(number, *(torch.cat(parts) for parts in zip(*kept, strict=True)))


def warn_of_missing_classes(labels: Tensor, classes: int) -> None:
    """Warn where the first images are of few classes, as those of folders are that are read in order.

    Args:
        labels: of the images that are measured, which are not all that there are, shape (n,).
        classes: how many there are.
    """
    found = len(labels.unique())
    if found < classes <= len(labels):
        text = f"the first {len(labels)} images are of {found} of {classes} classes"
        warnings.warn(f"{text}: shuffle the images once, or raise max_images", stacklevel=2)
