"""TRADES: training that trades accuracy on clean images for agreement on attacked ones."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lightning_attractors.errors import require
from lightning_attractors.robustness import PGD, Strength

# The authors' code starts the attack this far from the image: at the image itself the gradient vanishes.
_START = 1e-3


@dataclass(frozen=True)
class TRADES:
    """CE(f(x), y) + β KL(f(x) ‖ f(x′)), x′ the worst image found around x (Zhang et al., 2019).

    x′ maximises the divergence by projected gradient ascent in the L∞ ball of radius ε, within [0, 1].

    Args:
        beta: β, at least 0.
        epsilon: ε, above 0 and at most 1.
        step_size: length of a step of the ascent, above 0.
        steps: number of steps, at least 1.
        seed: seed of the ascent's random start, at least 0.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    beta: float = 6.0
    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.beta < math.inf, "trades.beta", self.beta, "must be finite and at least 0")
        require(0 < self.epsilon <= 1, "trades.epsilon", self.epsilon, "must be above 0 and at most 1")
        valid = "must be finite and above 0"
        require(0 < self.step_size < math.inf, "trades.step_size", self.step_size, valid)
        require(self.steps >= 1, "trades.steps", self.steps, "must be at least 1")
        require(self.seed >= 0, "trades.seed", self.seed, "must be at least 0")

    def attack(self, model: Callable[[Tensor], Tensor], images: Tensor, generator: torch.Generator) -> Tensor:
        """The images x′, shape (B, C, H, W), within ε of ``images`` and within [0, 1].

        Works in inference mode too. The gradients of the model's parameters are left alone; put the model
        into evaluation mode beforehand.

        Args:
            model: gives logits (B, K), differentiable in the images.
            images: x, shape (B, C, H, W), in [0, 1].
            generator: where the random start comes from, on the device of the images.
        """
        with torch.inference_mode(False), torch.enable_grad():
            images = images.clone() if images.is_inference() else images.detach()
            # Not under no_grad: autocast would go on using the rounded weights, which then have no gradient.
            target = model(images).detach().float().log_softmax(dim=1)
            ascent = _DivergenceAscent("linf", self.steps, self.step_size, generator=generator)
            (attacked,) = deque(ascent.path(model, images, target, self.epsilon), maxlen=1)  # the last one
            return attacked

    def loss(self, clean: Tensor, attacked: Tensor, labels: Tensor) -> Tensor:
        """The loss from the logits (B, K) of clean and of attacked images and the labels (B,)."""
        divergence = functional.kl_div(
            attacked.float().log_softmax(dim=1),
            clean.float().log_softmax(dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return functional.cross_entropy(clean, labels) + self.beta * divergence


@dataclass(frozen=True)
class _DivergenceAscent(PGD):
    """The ascent of KL(f(x) ‖ f(x′)), where the "labels" are log f(x), shape (B, K)."""

    generator: torch.Generator | None = None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        attacked = logits.float().log_softmax(dim=1)
        return functional.kl_div(attacked, labels, reduction="none", log_target=True).sum(dim=1)

    def start(self, images: Tensor, strength: Strength) -> Tensor:
        noise = torch.empty(images.shape, dtype=images.dtype, device=images.device)
        noise.normal_(generator=self.generator)
        return (images + _START * noise).clamp(0, 1)

    def project(self, moved: Tensor, images: Tensor, strength: Strength) -> Tensor:
        # Another order of roundings would train other weights than the authors' code
        return moved.clamp(images - strength, images + strength).clamp(0, 1)
