"""A trial of everything that a measurement will do, on a few images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_attractors.robustness.attacks import FGSM, Classifier, Logits, Trial
from lightning_attractors.robustness.randomness import unchanged_random_numbers
from lightning_attractors.robustness.settings import MeasureSettings


def rehearse(
    logits_fn: Logits, images: Tensor, labels: Tensor, trials: Sequence[Trial], settings: MeasureSettings
) -> None:
    """Try everything on a few images, so that what does not fit is said before it costs anything.

    Args:
        logits_fn: as for :func:`measure`.
        images: (B, C, H, W) in [0, 1], on the device of the classifier.
        labels: (B,).
        trials: each is tried at its smallest and its largest strength.
        settings: of the measurement.

    Raises:
        SettingError: if something does not fit.
    """
    with unchanged_random_numbers():
        size = settings.batch_size
        Classifier(logits_fn, images, labels, size).gradient(FGSM(), images, labels)
        if settings.smoothing is not None:  # a classifier may refuse what leaves [0, 1]
            noisy = images + settings.smoothing.sigma * torch.randn_like(images)
            with torch.no_grad():
                Classifier(logits_fn, images, labels, size).logits(noisy)
        # An untrained classifier may have all wrong, where attacks do nothing: the classes are its own
        with torch.no_grad():
            classes = logits_fn(images).argmax(dim=1)
        classifier = Classifier(logits_fn, images, classes, size)
        for trial in trials:
            ends = tuple({min(trial.strengths), max(trial.strengths)} if trial.strengths else ())
            replace(trial, strengths=ends)(classifier, [settings.seed])
