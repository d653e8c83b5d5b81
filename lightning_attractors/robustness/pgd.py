"""Adversarial radii by projected gradient descent in steps of one size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_attractors.errors import require
from lightning_attractors.robustness.radii import AdversarialRadii
from lightning_attractors.robustness.targets import Logits, Target

_ROUNDING = 1e-6


def pgd_radii(
    logits_fn: Logits,
    images: Tensor,
    labels: Tensor,
    largest: float = 0.3,
    step_size: float = 1 / 255,
    steps: int = 40,
    batch_size: int = 512,
) -> AdversarialRadii:
    """How far projected gradient descent gets before every image is misclassified (Torvik, 2023).

    From x⁰ = x, with no random start, xⁱ⁺¹ = clip(Π(xⁱ + ε sign ∇L(xⁱ))) with Π the projection to the L∞
    ball of radius ``largest`` around x: the steps of ``torchattacks.PGD(eps=largest, alpha=step_size,
    random_start=False)``. ρ is ‖xⁱ − x‖∞ at the first xⁱ that is misclassified. Where some pixel moves the
    same way at every step, ρ = ε i, exactly, but at most ``largest``.

    All images are moved together in full batches; an image leaves when it is misclassified, or when its
    gradient vanishes, as it would stay where it is.

    Args:
        logits_fn: gives the logits (B, K) of images (B, C, H, W) in [0, 1], each image's a function of it
            alone, and differentiable.
        images: (N, C, H, W), floating point, in [0, 1].
        labels: (N,), int64.
        largest: radius S of the ball, above 0, and the largest ρ that can be found.
        step_size: ε, above 0.
        steps: how many steps are taken at most, at least 1.
        batch_size: how many images are given to ``logits_fn`` at a time at most, at least 1.

    Returns:
        The radii, with the number of steps to each.

    Raises:
        SettingError: if a setting lies outside its range, the images leave [0, 1], labels do not fit them, or
            ``logits_fn`` gives nan, another shape, or no gradient.
    """
    require(largest > 0, "largest", largest, "must be above 0")
    require(step_size > 0, "step_size", step_size, "must be above 0")
    require(steps >= 1, "steps", steps, "must be at least 1")
    target = Target(logits_fn, images, labels, batch_size)
    climb = _Climb(target, largest, step_size)
    active = torch.arange(len(images), device=images.device)
    for step in range(steps):
        if not len(active):
            break
        active = torch.cat([climb.step(rows, step) for rows in active.split(batch_size)])
    # An empty tensor splits into one part, and networks need not take no images
    for rows in active.split(batch_size) if len(active) else ():
        climb.record(rows[target.is_wrong(climb.images[rows], target.labels[rows])], steps)
    moved = (climb.images - target.images).abs().flatten(1).amax(dim=1).double()
    # float32 images leave x + ε i a little short of it or beyond, which would split ties
    exact = (climb.steps.double() * step_size).clamp(max=largest)
    moved = torch.where((moved - exact).abs() <= _ROUNDING, exact, moved)
    radii = torch.where(climb.steps >= 0, moved, math.inf)
    return AdversarialRadii(radii, climb.images, climb.steps, climb.flat)


class _Climb:
    """Images on their way up the loss.

    Attributes:
        images: where they are, (N, C, H, W).
        steps: after how many steps they were misclassified, shape (N,), int64; −1 where they are not.
        flat: whether they met a gradient that is 0 everywhere before that, shape (N,), bool.
    """

    def __init__(self, target: Target, largest: float, step_size: float) -> None:
        self.target = target
        self.largest = largest
        self.step_size = step_size
        self.images = target.images.clone()
        self.steps = torch.full_like(target.labels, -1)
        self.flat = torch.zeros_like(target.labels, dtype=torch.bool)

    def step(self, rows: Tensor, taken: int) -> Tensor:
        """Move a batch of images on unless they are misclassified, and give the rows still on their way.

        Args:
            rows: which images, shape (B,), all after the same number of steps.
            taken: that number.
        """
        images = self.images[rows]
        signs, stuck, wrong = self.target.gradient_sign(images, self.target.labels[rows])
        self.record(rows[wrong], taken)
        self.flat[rows] = stuck
        moves = ~(stuck | wrong)
        if not bool(moves.all()):
            rows, images, signs = rows[moves], images[moves], signs[moves]
        start = self.target.images[rows]
        change = signs.mul_(self.step_size).add_(images).sub_(start).clamp_(-self.largest, self.largest)
        self.images[rows] = change.add_(start).clamp_(0, 1)
        return rows

    def record(self, rows: Tensor, taken: int) -> None:
        """Note the images that are misclassified after so many steps."""
        self.steps[rows] = taken
