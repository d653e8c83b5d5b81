"""What attacks along a gradient share: a loss, a start, a direction and a projection, in L∞ and in L2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_attractors.errors import require
from lightning_attractors.norms import NORMS, NormName

Logits = Callable[[Tensor], Tensor]
# One strength for all images, or one of each, shape (B,).
Strength = float | Tensor


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """How far another class is ahead, max_{j≠y} z_j − z_y, of logits (B, K), shape (B,), float64.

    Above 0 exactly where the prediction is not the label, in ties too.
    """
    column = labels.unsqueeze(1)
    others = logits.scatter(1, column, -torch.inf).amax(dim=1)
    ahead = (others - logits.gather(1, column).squeeze(1)).double().nan_to_num(nan=0)
    smallest = torch.finfo(ahead.dtype).tiny
    wrong = logits.argmax(dim=1) != labels
    return torch.where(wrong, ahead.clamp(min=smallest), ahead.clamp(max=0))


@dataclass(frozen=True)
class GradientAttack:
    """An attack that moves images up the gradient of a loss, in a ball of some norm and within [0, 1].

    A subclass says in ``__call__(logits_fn, images, labels, strength)`` how it goes on, and replaces what it
    does otherwise: :meth:`loss`, :meth:`start`, :meth:`direction` or :meth:`project`.

    Args:
        norm: ``linf`` or ``l2``, of all pixels of an image together: in it steps are of one length, and
            images stay within the strength.

    Raises:
        SettingError: if the norm is unknown.
    """

    norm: NormName = "linf"

    def __post_init__(self) -> None:
        require(self.norm in NORMS, "norm", self.norm, f"must be {' or '.join(NORMS)}")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What is made large, shape (B,): m = log Σ_{j≠y} e^{z_j} − z_y of logits (B, K).

        Cross-entropy is log(1 + eᵐ), so its gradient is that of m times a number from 0 to 1. That number
        rounds to 0 for images of high confidence, and the direction with it; hence it is left out.
        """
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        column = labels.unsqueeze(1)
        others = wide.scatter(1, column, -torch.inf).logsumexp(dim=1)
        return others - wide.gather(1, column).squeeze(1)

    def start(self, images: Tensor, strength: Strength) -> Tensor:
        """Where the attack on images (B, C, H, W) begins: at the images."""
        return images

    def direction(self, gradient: Tensor) -> Tensor:
        """The change (B, C, H, W) of norm 1 that raises the loss fastest; 0 where the gradient is 0."""
        if self.norm == "linf":
            return gradient.sign()
        # By the largest entry first: squares of small gradients would vanish
        largest = gradient.flatten(1).abs().amax(dim=1)
        scaled = gradient / per_image(largest.clamp(min=torch.finfo(largest.dtype).tiny))
        return scaled / per_image(torch.linalg.vector_norm(scaled.flatten(1), dim=1).clamp(min=1))

    def project(self, moved: Tensor, images: Tensor, strength: Strength) -> Tensor:
        """The nearest to ``moved``, which is overwritten, within the strength of ``images`` and [0, 1]."""
        change = moved.sub_(images)
        if self.norm == "linf":
            reach: Any = per_image(strength)
            change.clamp_(-reach, reach)
        else:
            length = torch.linalg.vector_norm(change.flatten(1), dim=1)
            share = strength / length.clamp(min=torch.finfo(length.dtype).tiny)
            change.mul_(per_image(share.to(change).clamp(max=1)))
        # Clipping to [0, 1], where the images are, only shortens a change
        return change.add_(images).clamp_(0, 1)

    def step(
        self, gradient: Tensor, attacked: Tensor, images: Tensor, length: Strength, strength: Strength
    ) -> Tensor:
        """Attacked images, which lie within the strength of ``images``, moved on by one step."""
        moved = self.direction(gradient).mul_(per_image(length)).add_(attacked)
        return self.project(moved, images, strength)

    def gradient(self, logits_fn: Logits, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the loss in the images, and the logits there.

        Works under ``torch.no_grad`` and ``torch.inference_mode`` as well, and leaves no gradient on the
        classifier's parameters.

        Args:
            logits_fn: gives the logits (B, K) of images, each image's a function of it alone.
            images: (B, C, H, W).
            labels: (B,), or whatever :meth:`loss` compares the logits with.

        Returns:
            (B, C, H, W) and (B, K), both without a graph.
        """
        with torch.inference_mode(False), torch.enable_grad():
            if images.is_inference():  # autograd keeps no such tensors
                images, labels = images.clone(), labels.clone()
            leaf = images.detach().requires_grad_()
            logits = logits_fn(leaf)
            loss = self.loss(logits, labels).sum()
            # A classifier that does not look at the image has a gradient too: 0
            (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True, materialize_grads=True)
        return gradient, logits.detach()


def per_image(value: Strength) -> Strength:
    """A number as it is; numbers (B,) in the shape (B, 1, 1, 1) that images take them in."""
    return value.view(-1, 1, 1, 1) if isinstance(value, Tensor) else value
