"""What attacks found of every image, and what it amounts to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from lightning_attractors.robustness.attacks import Outcome
from lightning_attractors.robustness.logistic import LogisticFit, fit_logistic, relative_accuracy

Rows = TypeVar("Rows", bound="Clean")


@dataclass(frozen=True)
class Clean:
    """What is known of the images of a batch before they are attacked, all on the CPU.

    Attributes:
        index: places of the images in the split, shape (B,), int64.
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
class Records(Clean):
    """Images before an attack and after it, one row each.

    The columns are those of :class:`Clean` and of :class:`~lightning_attractors.robustness.attacks.Outcome`,
    whose distances are in the norm of the certified radii; ``withstood`` is (N, 0) after a search.
    """

    radii: Tensor
    steps: Tensor
    distances: Tensor
    bounded: Tensor
    vanished: Tensor
    withstood: Tensor

    @classmethod
    def of(cls, clean: Clean, outcome: Outcome) -> Records:
        """The rows of one batch, on the CPU."""
        withstood = outcome.withstood
        if withstood is None:
            withstood = torch.empty(len(clean.index), 0, dtype=torch.bool)
        return cls(
            **{field.name: getattr(clean, field.name) for field in fields(Clean)},
            radii=outcome.radii.cpu(),
            steps=outcome.steps.cpu(),
            distances=outcome.distances.cpu(),
            bounded=outcome.bounded.cpu(),
            vanished=outcome.vanished.cpu(),
            withstood=withstood.cpu(),
        )

    def breaches(self) -> Tensor:
        """Indices of images that were misclassified within their certified radius, shape (M,)."""
        inside = self.correct & (self.certified > 0) & (self.distances <= self.certified)
        return self.index[inside]


@dataclass(frozen=True)
class Curve:
    """Accuracies against strength, each of shape (S,), float64.

    Attributes:
        strengths: ascending where there is a search; as given otherwise.
        accuracy: share of all images that are classified correctly.
        relative: the same among the images that count; nan without any.
        certified: share of the images that count with a certified radius of at least |strength|; None without
            a certificate, or where the attack went farther than its strength in the certificate's norm.
    """

    strengths: Tensor
    accuracy: Tensor
    relative: Tensor
    certified: Tensor | None


def curve(records: Records, strengths: Sequence[float], confidence: float) -> Curve:
    """The curve of an attack, at the strengths of its sweep or at whatever else is asked for."""
    counts = records.confident(confidence)
    points = torch.tensor(strengths, dtype=torch.float64)
    if records.withstood.shape[1]:
        right = records.withstood.double()
        accuracy = right.mean(dim=0)
        relative = right[counts].mean(dim=0)
    else:
        accuracy = relative_accuracy(records.radii, points)
        relative = torch.full_like(points, torch.nan)
        if bool(counts.any()):
            relative = relative_accuracy(records.radii[counts], points)
    certified = None
    if records.has_certificate and bool(records.bounded.all()) and bool(counts.any()):
        held = records.certified[counts] >= points.abs().unsqueeze(1)
        certified = held.sum(dim=1).double() / held.shape[1]
    return Curve(points, accuracy, relative, certified)


def fit(
    records: Records, confidence: float, reach: float | Sequence[float] | None = None
) -> tuple[LogisticFit | None, str]:
    """The generalised logistic function through the curve of the images that count, or why there is none.

    The reach is that of the attack, as :func:`fit_logistic` takes it.
    """
    counts = records.confident(confidence)
    if not bool(counts.any()):
        return None, f"no image is classified correctly with a confidence of {confidence:g} or more"
    found = fit_logistic(records.radii[counts], reach)
    return found, found.reason
