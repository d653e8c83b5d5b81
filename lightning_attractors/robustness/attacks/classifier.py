"""A classifier under attack: which images it gets wrong, and which way its loss rises."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attractors.contracts import name_of
from lightning_attractors.errors import require
from lightning_attractors.robustness.attacks.base import GradientAttack, Logits, margins


class Classifier:
    """A classifier with the images to attack, in pixel space; what the attacks here share.

    Works under ``torch.no_grad`` and ``torch.inference_mode`` as well, and leaves no gradient on the
    classifier's parameters. Whether it is in evaluation mode is the caller's business.

    Args:
        logits_fn: gives the logits (B, K) of images (B, C, H, W), each image's a function of it alone, and
            differentiable; it must normalise the images itself where the classifier wants that.
        images: (N, C, H, W), floating point, in [0, 1].
        labels: (N,), int64, from 0 to K − 1, on the device of the images.
        batch_size: how many images are given to ``logits_fn`` at a time at most, at least 1.

    Raises:
        SettingError: if images, labels or batch size are not as said above.
    """

    def __init__(self, logits_fn: Logits, images: Tensor, labels: Tensor, batch_size: int) -> None:
        require(batch_size >= 1, "batch_size", batch_size, "must be at least 1")
        shape = tuple(images.shape)
        floats = images.is_floating_point() and len(shape) == 4
        require(floats, "images", shape, "must be floating point, (N, C, H, W)")
        require(labels.shape == shape[:1], "labels", tuple(labels.shape), f"must be {shape[:1]}: one each")
        if len(images):
            ends = [float(end) for end in images.aminmax()]
            inside = ends[0] >= 0 and ends[1] <= 1
            require(inside, "images", ends, "must lie from 0 to 1; normalise them in logits_fn")
        self.images, self.labels = images.detach(), labels
        self.logits_fn = logits_fn
        self.batch_size = batch_size

    @torch.no_grad()
    def is_wrong(self, images: Tensor, labels: Tensor) -> Tensor:
        """Whether the prediction is not the label, shape (B,), bool, for at most a batch of images."""
        return self.margins(images, labels) > 0

    @torch.no_grad()
    def margins(self, images: Tensor, labels: Tensor) -> Tensor:
        """How far another class is ahead, shape (B,), float64, for at most a batch: see :func:`margins`."""
        return margins(self.logits(images), labels)

    def gradient(
        self, attack: GradientAttack, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of an attack's loss, where it vanishes, and which images are wrong.

        Args:
            attack: whose loss it is.
            images: at most a batch, (B, C, H, W).
            labels: (B,).

        Returns:
            The gradient, (B, C, H, W); whether all of an image's is 0 though it is not wrong, (B,), bool;
            whether its prediction is not the label, (B,), bool.

        Raises:
            SettingError: if the logits hide their gradient from autograd, or if it is nan.
        """

        def differentiable(leaf: Tensor) -> Tensor:
            logits = self.logits(leaf)
            self._require(logits.requires_grad, "must be differentiable: remove no_grad and detach from it")
            self._require_classes(labels, logits.shape[1])
            return logits

        gradient, logits = attack.gradient(differentiable, images, labels)
        size = torch.linalg.vector_norm(gradient.flatten(1), ord=1, dim=1)
        self._require(not bool(size.isnan().any()), "must have a gradient without nan")
        wrong = logits.argmax(dim=1) != labels
        return gradient, (size == 0) & ~wrong, wrong

    def logits(self, images: Tensor) -> Tensor:
        """The logits (B, K) of at most a batch of images.

        Raises:
            SettingError: if ``logits_fn`` gives another shape, or nan.
        """
        logits = self.logits_fn(images)
        shape = tuple(logits.shape)
        fits = len(shape) == 2 and shape[0] == len(images) and shape[1] >= 2
        self._require(fits, f"must give logits of shape ({len(images)}, K), K >= 2, not {shape}")
        bad = int(logits.isnan().any(dim=1).sum())
        self._require(bad == 0, f"must give logits without nan, which {bad} of {len(images)} images have")
        return logits

    def _require_classes(self, labels: Tensor, count: int) -> None:
        ends = [int(end) for end in labels.aminmax()]
        inside = ends[0] >= 0 and ends[1] < count
        require(inside, "labels", ends, f"must lie from 0 to {count - 1}: logits_fn gives {count} classes")

    def _require(self, condition: bool, valid: str) -> None:
        require(condition, "logits_fn", name_of(self.logits_fn), valid)
