"""Projected gradient descent: an attack of one strength, and adversarial radii in steps of one size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.errors import require
from lightning_attractors.norms import NormName, distances
from lightning_attractors.robustness.attacks.base import (
    GradientAttack,
    Logits,
    Strength,
    margins,
    per_image,
)
from lightning_attractors.robustness.attacks.classifier import Classifier
from lightning_attractors.robustness.attacks.radii import AdversarialRadii

_ROUNDING = 1e-6


@dataclass(frozen=True)
class PGD(GradientAttack):
    """Steps up the loss, each followed by a projection, from random starts (Madry et al., 2018).

    The starts come from torch's global random numbers: uniform in the ball of L∞, on the sphere of L2.

    Args:
        norm: ``linf`` or ``l2``.
        steps: how many steps are taken from every start, at least 1.
        step_size: their length, above 0; if None it falls linearly, from half of the strength.
        restarts: number of starts, at least 1.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    steps: int = 40
    step_size: float | None = None
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, "steps", self.steps, "must be at least 1")
        fits = self.step_size is None or self.step_size > 0
        require(fits, "step_size", self.step_size, "must be above 0, or null")
        require(self.restarts >= 1, "restarts", self.restarts, "must be at least 1")

    @torch.no_grad()
    def __call__(self, logits_fn: Logits, images: Tensor, labels: Tensor, strength: Strength) -> Tensor:
        """Of all images (B, C, H, W) that the steps pass, those where another class is farthest ahead."""
        best, ahead = images, margins(logits_fn(images), labels)
        for _ in range(self.restarts):
            for attacked in self.path(logits_fn, images, labels, strength):
                found = margins(logits_fn(attacked), labels)
                best = torch.where((found > ahead).view(-1, 1, 1, 1), attacked, best)
                ahead = torch.maximum(found, ahead)
        return best

    def path(self, logits_fn: Logits, images: Tensor, labels: Tensor, strength: Strength) -> Iterator[Tensor]:
        """Where the images (B, C, H, W) are after every step from one start."""
        attacked = self.start(images, strength)
        for taken in range(self.steps):
            gradient, _ = self.gradient(logits_fn, attacked, labels)
            falling = 0.5 * strength * (1 - taken / self.steps)
            attacked = self.step(gradient, attacked, images, self.step_size or falling, strength)
            yield attacked

    def start(self, images: Tensor, strength: Strength) -> Tensor:
        if self.norm == "linf":
            noise = torch.rand_like(images).mul_(2).sub_(1)
        else:
            noise = self.direction(torch.randn_like(images))
        return self.project(noise.mul_(per_image(strength)).add_(images), images, strength)


def pgd_radii(
    logits_fn: Logits,
    images: Tensor,
    labels: Tensor,
    largest: float = 0.3,
    step_size: float = 1 / 255,
    steps: int = 40,
    batch_size: int = 512,
    norm: NormName = "linf",
) -> AdversarialRadii:
    """How far projected gradient descent gets before every image is misclassified (Torvik, 2023).

    From x⁰ = x, with no random start, xⁱ⁺¹ = clip(Π(xⁱ + ε d)) with d = sign ∇L(xⁱ) in L∞ and the gradient
    divided by its norm in L2, Π the projection to the ball of radius ``largest`` around x: in L∞ the steps of
    ``torchattacks.PGD(eps=largest, alpha=step_size, random_start=False)``. ρ is ‖xⁱ − x‖, in the norm, at the
    first xⁱ that is misclassified. Where in L∞ some pixel moves the same way at every step, ρ = ε i, exactly,
    but at most ``largest``.

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
        norm: ``linf`` or ``l2``, of ``largest``, ``step_size`` and ρ.

    Returns:
        The radii, with the number of steps to each.

    Raises:
        SettingError: if a setting lies outside its range, the images leave [0, 1], labels do not fit them, or
            ``logits_fn`` gives nan, another shape, or no gradient.
    """
    require(largest > 0, "largest", largest, "must be above 0")
    require(step_size > 0, "step_size", step_size, "must be above 0")
    require(steps >= 1, "steps", steps, "must be at least 1")
    classifier = Classifier(logits_fn, images, labels, batch_size)
    climb = _Climb(classifier, PGD(norm), largest, step_size)
    active = torch.arange(len(images), device=images.device)
    for step in range(steps):
        if not len(active):
            break
        active = torch.cat([climb.step(rows, step) for rows in active.split(batch_size)])
    # An empty tensor splits into one part, and networks need not take no images
    for rows in active.split(batch_size) if len(active) else ():
        climb.record(rows[classifier.is_wrong(climb.images[rows], classifier.labels[rows])], steps)
    moved = distances(climb.images - classifier.images, torch.zeros(()).to(images), norm)
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

    def __init__(
        self, classifier: Classifier, attack: GradientAttack, largest: float, step_size: float
    ) -> None:
        self.classifier, self.attack = classifier, attack
        self.largest = largest
        self.step_size = step_size
        self.images = classifier.images.clone()
        self.steps = torch.full_like(classifier.labels, -1)
        self.flat = torch.zeros_like(classifier.labels, dtype=torch.bool)

    def step(self, rows: Tensor, taken: int) -> Tensor:
        """Move a batch of images on unless they are misclassified, and give the rows still on their way.

        Args:
            rows: which images, shape (B,), all after the same number of steps.
            taken: that number.
        """
        attacked = self.images[rows]
        gradient, stuck, wrong = self.classifier.gradient(self.attack, attacked, self.classifier.labels[rows])
        self.record(rows[wrong], taken)
        self.flat[rows] = stuck
        moves = ~(stuck | wrong)
        if not bool(moves.all()):
            rows, attacked, gradient = rows[moves], attacked[moves], gradient[moves]
        images = self.classifier.images[rows]
        self.images[rows] = self.attack.step(gradient, attacked, images, self.step_size, self.largest)
        return rows

    def record(self, rows: Tensor, taken: int) -> None:
        """Note the images that are misclassified after so many steps."""
        self.steps[rows] = taken
