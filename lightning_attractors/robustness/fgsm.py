"""Adversarial radii along the direction of the fast gradient sign method, to 1e-6."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_attractors.errors import require
from lightning_attractors.robustness.radii import AdversarialRadii
from lightning_attractors.robustness.targets import Logits, Target


def fgsm_radii(
    logits_fn: Logits,
    images: Tensor,
    labels: Tensor,
    largest: float = 1.0,
    resolution: float = 1 / 255,
    tolerance: float = 1e-6,
    batch_size: int = 512,
) -> AdversarialRadii:
    """The smallest ε at which clip(x + ε sign ∇L(x)) is misclassified, for every image (Torvik, 2023).

    The direction is that of the gradient at the image itself and stays. Along it the multiples of
    ``resolution`` are tried in ascending order, and ``largest`` at last; the interval before the first that
    is misclassified is halved until it is no longer than ``tolerance``. So the image is misclassified at ρ
    and not at ρ − tolerance, and all that may be missed is a stretch of misclassified ε that fits between
    two multiples.

    All images are tried together in full batches; an image leaves when its interval is found, and the fewer
    are left, the more multiples are tried of each at a time.

    Args:
        logits_fn: gives the logits (B, K) of images (B, C, H, W) in [0, 1], each image's a function of it
            alone, and differentiable.
        images: (N, C, H, W), floating point, in [0, 1].
        labels: (N,), int64.
        largest: largest ε that is tried, above 0. At 1 every pixel that moves has arrived at 0 or 1.
        resolution: distance of the ε that are tried first, above 0.
        tolerance: length of the last interval, above 0; floating point ends the halving in any case.
        batch_size: how many images are given to ``logits_fn`` at a time at most, at least 1.

    Returns:
        The radii; ``steps`` is 1 wherever the attack succeeded, as the method takes one step.

    Raises:
        SettingError: if a setting lies outside its range, the images leave [0, 1], labels do not fit them, or
            ``logits_fn`` gives nan, another shape, or no gradient.

    Example:
        >>> def brighter_than_half(images):
        ...     mean = images.mean(dim=(1, 2, 3))
        ...     return torch.stack([0.5 - mean, mean - 0.5], dim=1)
        >>> found = fgsm_radii(brighter_than_half, torch.full((1, 1, 2, 2), 0.25), torch.tensor([0]))
        >>> round(found.radii.item(), 5)
        0.25
    """
    require(largest > 0, "largest", largest, "must be above 0")
    require(resolution > 0, "resolution", resolution, "must be above 0")
    require(tolerance > 0, "tolerance", tolerance, "must be above 0")
    ray = _Ray(Target(logits_fn, images, labels, batch_size))
    grid = torch.arange(math.ceil(largest / resolution - 1e-9) + 1, dtype=torch.float64) * resolution
    grid[-1] = largest
    first = ray.scan(grid)
    found = (first > 0).nonzero().squeeze(1)
    ends = grid.to(first.device)
    radii = torch.full(first.shape, math.inf, dtype=torch.float64, device=first.device)
    radii[ray.wrong] = 0
    radii[found] = ray.bisect(found, ends[first[found] - 1], ends[first[found]], tolerance)
    steps = torch.where(radii.isinf(), -1, (radii > 0).long())
    adversarial = ray.at(torch.arange(len(radii), device=radii.device), radii.clamp(max=largest))
    return AdversarialRadii(radii, adversarial, steps, ray.flat)


class _Ray:
    """The straight line from every image along its gradient's sign, clipped to [0, 1].

    Attributes:
        wrong: images that are wrong to begin with, shape (N,), bool.
        flat: the other ones whose gradient is 0 everywhere, shape (N,), bool.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.directions = torch.empty_like(target.images)
        self.wrong = torch.empty_like(target.labels, dtype=torch.bool)
        self.flat = torch.empty_like(self.wrong)
        for rows in self._batches(len(target.images)):
            images, labels = target.images[rows], target.labels[rows]
            signs, self.flat[rows], self.wrong[rows] = target.gradient_sign(images, labels)
            self.directions[rows] = signs

    def at(self, rows: Tensor, strengths: Tensor) -> Tensor:
        """The images of the given rows (M,) at the given ε (M,)."""
        images = self.target.images[rows]
        step = self.directions[rows] * strengths.to(images.dtype).view(-1, 1, 1, 1)
        return step.add_(images).clamp_(0, 1)

    def is_wrong(self, rows: Tensor, strengths: Tensor) -> Tensor:
        """Whether the images of the given rows (M,) are misclassified at the given ε (M,)."""
        answers = torch.empty(len(rows), dtype=torch.bool, device=rows.device)
        for part in self._batches(len(rows)):
            chosen = rows[part]
            moved = self.at(chosen, strengths[part])
            answers[part] = self.target.is_wrong(moved, self.target.labels[chosen])
        return answers

    def scan(self, grid: Tensor) -> Tensor:
        """Index of the first ε of an ascending grid that is misclassified, shape (N,), int64.

        The grid starts at 0, which is not tried. 0 is also the answer where none is, and for images that are
        wrong to begin with or have no direction.
        """
        grid = grid.to(self.wrong.device)
        first = torch.zeros(self.wrong.shape, dtype=torch.int64, device=grid.device)
        active = (~(self.wrong | self.flat)).nonzero().squeeze(1)
        tried = 1
        while len(active) and tried < len(grid):
            ahead = grid[tried : tried + max(1, self.target.batch_size // len(active))]
            fails = self.is_wrong(active.repeat_interleave(len(ahead)), ahead.repeat(len(active)))
            fails = fails.view(len(active), len(ahead))
            done = fails.any(dim=1)
            first[active[done]] = tried + fails[done].to(torch.uint8).argmax(dim=1)
            active = active[~done]
            tried += len(ahead)
        return first

    def bisect(self, rows: Tensor, lower: Tensor, upper: Tensor, tolerance: float) -> Tensor:
        """Halve intervals (M,) of the given rows, right below and wrong above, and give their upper ends."""
        active = torch.arange(len(rows), device=rows.device)
        lower, upper = lower.clone(), upper.clone()
        while len(active):
            middle = (lower[active] + upper[active]) / 2
            fails = self.is_wrong(rows[active], middle)
            upper[active] = torch.where(fails, middle, upper[active])
            lower[active] = torch.where(fails, lower[active], middle)
            length = (upper - lower)[active]
            # At tolerances below what float64 resolves the middle ends on one of the two
            active = active[(length > tolerance) & (length > 1e-15)]
        return upper

    def _batches(self, count: int) -> list[slice]:
        size = self.target.batch_size
        return [slice(start, start + size) for start in range(0, count, size)]
