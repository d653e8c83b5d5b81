"""Accuracy against the strength of a random corruption, for any classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_attractors.errors import require
from lightning_attractors.robustness.corruptions import Corruption


@dataclass(frozen=True)
class CorruptionCurve:
    """Accuracies of a classifier under a corruption of increasing strength.

    Attributes:
        strengths: shape (S,).
        accuracies: accuracy of every repeat at every strength, shape (R, S), in [0, 1].
    """

    strengths: Tensor
    accuracies: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean over the repeats, shape (S,)."""
        return self.accuracies.mean(dim=0)

    @property
    def spread(self) -> Tensor:
        """Standard deviation over the repeats, shape (S,); nan for a single one."""
        return self.accuracies.std(dim=0)


@torch.no_grad()
def corruption_curve(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    corruption: Corruption,
    strengths: Sequence[float],
    repeats: int = 5,
    seed: int = 0,
) -> CorruptionCurve:
    """Measure a classifier's accuracy under a random corruption.

    Args:
        predict: gives the logits (B, K) of images (B, C, H, W), on whatever device.
        batches: images in [0, 1] and labels (B,), both on the CPU; passed over once.
        corruption: one of :data:`~lightning_attractors.robustness.CORRUPTIONS`, or any function of images,
            strength and generator.
        strengths: strengths to measure at, at least one.
        repeats: how often every image is corrupted anew at every strength, at least 1.
        seed: seed of the corruptions, which are a function of it, the batch and the repeat: at every strength
            the same random numbers, so that the curve is smooth.

    Raises:
        SettingError: if there are no strengths, repeats or images.
    """
    require(len(strengths) > 0, "strengths", strengths, "must be at least one number")
    require(repeats >= 1, "repeats", repeats, "must be at least 1")
    hits, total = torch.zeros(repeats, len(strengths), dtype=torch.int64), 0
    for index, (images, labels) in enumerate(batches):
        total += len(labels)
        for i, strength in enumerate(strengths):
            for repeat in range(repeats):
                corrupted = corruption(images, strength, np.random.default_rng([seed, index, repeat]))
                hits[repeat, i] += (predict(corrupted).argmax(dim=1).cpu() == labels).sum()
    require(total > 0, "batches", "none", "must hold at least one image")
    return CorruptionCurve(torch.tensor(strengths, dtype=torch.float64), hits.double() / total)
