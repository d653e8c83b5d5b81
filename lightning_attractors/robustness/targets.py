"""What an attack in L∞ asks of a classifier: which images it gets wrong, and which way its loss rises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_attractors.errors import require

Logits = Callable[[Tensor], Tensor]


class Target:
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
        """How far another class is ahead, max_{j≠y} z_j − z_y, shape (B,), float64, for at most a batch.

        Above 0 exactly where the prediction is not the label, in ties too.
        """
        logits = self._logits(images)
        column = labels.unsqueeze(1)
        others = logits.scatter(1, column, -torch.inf).amax(dim=1)
        ahead = (others - logits.gather(1, column).squeeze(1)).double().nan_to_num(nan=0)
        smallest = torch.finfo(ahead.dtype).tiny
        wrong = logits.argmax(dim=1) != labels
        return torch.where(wrong, ahead.clamp(min=smallest), ahead.clamp(max=0))

    def gradient_sign(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sign of the gradient of the cross-entropy, where it vanishes, and which images are wrong.

        Cross-entropy is log(1 + eᵐ) with m = log Σ_{j≠y} e^{z_j} − z_y, so its gradient is that of m times a
        number from 0 to 1. That number rounds to 0 for images of high confidence, and the sign with it; hence
        it is left out.

        Args:
            images: at most a batch, (B, C, H, W).
            labels: (B,).

        Returns:
            Signs, (B, C, H, W), each −1, 0 or 1; whether all of an image's are 0 though it is not wrong,
            (B,), bool; whether its prediction is not the label, (B,), bool.

        Raises:
            SettingError: if the logits hide their gradient from autograd, or if it is nan.
        """
        with torch.inference_mode(False), torch.enable_grad():
            if images.is_inference():  # autograd keeps no such tensors
                images, labels = images.clone(), labels.clone()
            leaf = images.detach().requires_grad_()
            logits = self._logits(leaf)
            self._require(logits.requires_grad, "must be differentiable: remove no_grad and detach from it")
            self._require_classes(labels, logits.shape[1])
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            column = labels.unsqueeze(1)
            others = wide.scatter(1, column, -torch.inf).logsumexp(dim=1)
            margin = (others - wide.gather(1, column).squeeze(1)).sum()
            # A classifier that does not look at the image has a gradient too: 0
            (gradient,) = torch.autograd.grad(margin, leaf, allow_unused=True, materialize_grads=True)
        size = torch.linalg.vector_norm(gradient.flatten(1), ord=1, dim=1)
        self._require(not bool(size.isnan().any()), "must have a gradient without nan")
        wrong = logits.detach().argmax(dim=1) != labels
        return gradient.sign(), (size == 0) & ~wrong, wrong

    def _logits(self, images: Tensor) -> Tensor:
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
        name = getattr(self.logits_fn, "__name__", type(self.logits_fn).__name__)
        require(condition, "logits_fn", name, valid)
