"""The fast gradient (sign) method: one step, and adversarial radii along its direction, to 1e-6."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.errors import require
from lightning_attractors.norms import NormName
from lightning_attractors.robustness.attacks.base import GradientAttack, Logits, Strength, per_image
from lightning_attractors.robustness.attacks.classifier import Classifier
from lightning_attractors.robustness.attacks.radii import AdversarialRadii


@dataclass(frozen=True)
class FGSM(GradientAttack):
    """One step of the length of the strength, clip(x + ε d): d = sign ∇L(x) in L∞, ∇L(x)/‖∇L(x)‖₂ in L2.

    Example:
        >>> def brighter_than_half(images):
        ...     mean = images.mean(dim=(1, 2, 3))
        ...     return torch.stack([0.5 - mean, mean - 0.5], dim=1)
        >>> FGSM("l2")(brighter_than_half, torch.full((1, 1, 1, 2), 0.2), torch.tensor([0]), 0.1 * 2**0.5)
        tensor([[[[0.3000, 0.3000]]]])
    """

    def __call__(self, logits_fn: Logits, images: Tensor, labels: Tensor, strength: Strength) -> Tensor:
        """The attacked images (B, C, H, W), of images in [0, 1] and labels (B,)."""
        gradient, _ = self.gradient(logits_fn, images, labels)
        return self.along(images, self.direction(gradient), strength)

    def along(self, images: Tensor, directions: Tensor, strength: Strength) -> Tensor:
        """Images (B, C, H, W) moved along their directions, and clipped."""
        return (directions * per_image(strength)).add_(images).clamp_(0, 1)


def fgsm_radii(
    logits_fn: Logits,
    images: Tensor,
    labels: Tensor,
    largest: float = 1.0,
    resolution: float = 1 / 255,
    tolerance: float = 1e-6,
    batch_size: int = 512,
    norm: NormName = "linf",
) -> AdversarialRadii:
    """The smallest ε at which FGSM has an image misclassified, for every image (Torvik, 2023).

    The direction is that of the gradient at the image itself and stays: see :class:`FGSM`. Along it the
    multiples of ``resolution`` are tried in ascending order, and ``largest`` at last; the interval before the
    first that is misclassified is narrowed until it is no longer than ``tolerance``. So the image is
    misclassified at ρ and not at the interval's lower end, and all that may be missed is a stretch of
    misclassified ε that fits between two multiples.

    All images are tried together in full batches; an image leaves when its interval is found, and the fewer
    are left, the more multiples are tried of each at a time.

    Args:
        logits_fn: gives the logits (B, K) of images (B, C, H, W) in [0, 1], each image's a function of it
            alone, and differentiable.
        images: (N, C, H, W), floating point, in [0, 1].
        labels: (N,), int64.
        largest: largest ε that is tried, above 0. At 1 every pixel that moves in L∞ has arrived at
            0 or 1.
        resolution: distance of the ε that are tried first, above 0.
        tolerance: length of the last interval, above 0; floating point ends the narrowing in any case.
        batch_size: how many images are given to ``logits_fn`` at a time at most, at least 1.
        norm: ``linf`` or ``l2``, the norm of ε; clipping to [0, 1] may end nearer to the image than that.

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
    ray = _Ray(Classifier(logits_fn, images, labels, batch_size), FGSM(norm))
    grid = torch.arange(math.ceil(largest / resolution - 1e-9) + 1, dtype=torch.float64) * resolution
    grid[-1] = largest
    first, margins = ray.scan(grid)
    found = (first > 0).nonzero().squeeze(1)
    ends = grid.to(first.device)[torch.stack([first[found] - 1, first[found]], dim=1)]
    radii = torch.full(first.shape, math.inf, dtype=torch.float64, device=first.device)
    radii[ray.wrong] = 0
    radii[found] = ray.narrow(found, ends, margins[found], tolerance)
    steps = torch.where(radii.isinf(), -1, (radii > 0).long())
    adversarial = ray.at(torch.arange(len(radii), device=radii.device), radii.clamp(max=largest))
    return AdversarialRadii(radii, adversarial, steps, ray.flat)


class _Ray:
    """The straight line from every image along its direction, clipped to [0, 1].

    Attributes:
        wrong: images that are wrong to begin with, shape (N,), bool.
        flat: the other ones whose gradient is 0 everywhere, shape (N,), bool.
    """

    def __init__(self, classifier: Classifier, attack: FGSM) -> None:
        self.classifier, self.attack = classifier, attack
        self.directions = torch.empty_like(classifier.images)
        self.wrong = torch.empty_like(classifier.labels, dtype=torch.bool)
        self.flat = torch.empty_like(self.wrong)
        for rows in self._batches(len(classifier.images)):
            images, labels = classifier.images[rows], classifier.labels[rows]
            gradient, self.flat[rows], self.wrong[rows] = classifier.gradient(attack, images, labels)
            self.directions[rows] = attack.direction(gradient)

    def at(self, rows: Tensor, strengths: Tensor) -> Tensor:
        """The images of the given rows (M,) at the given ε (M,)."""
        images = self.classifier.images[rows]
        return self.attack.along(images, self.directions[rows], strengths.to(images.dtype))

    def margins(self, rows: Tensor, strengths: Tensor) -> Tensor:
        """Margins of the images of the given rows (M,) at the given ε (M,): above 0 where misclassified."""
        margins = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        for part in self._batches(len(rows)):
            chosen = rows[part]
            moved = self.at(chosen, strengths[part])
            margins[part] = self.classifier.margins(moved, self.classifier.labels[chosen])
        return margins

    def scan(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Index of the first ε of an ascending grid that is misclassified, shape (N,), int64.

        The grid starts at 0, which is not tried. 0 is also the answer where none is, and for images that are
        wrong to begin with or have no direction.

        Returns:
            The indices, and the margins at the ε before and at the first, shape (N, 2), nan where not known.
        """
        grid = grid.to(self.wrong.device)
        first = torch.zeros(self.wrong.shape, dtype=torch.int64, device=grid.device)
        ends = torch.full((len(first), 2), torch.nan, dtype=torch.float64, device=grid.device)
        active = (~(self.wrong | self.flat)).nonzero().squeeze(1)
        tried = 1
        while len(active) and tried < len(grid):
            ahead = grid[tried : tried + max(1, self.classifier.batch_size // len(active))]
            margins = self.margins(active.repeat_interleave(len(ahead)), ahead.repeat(len(active)))
            margins = torch.cat([ends[active, :1], margins.view(len(active), len(ahead))], dim=1)
            fails = margins > 0
            done = fails.any(dim=1)
            place = torch.where(done, fails.to(torch.uint8).argmax(dim=1), len(ahead) + 1)
            ends[active, 0] = margins.gather(1, place[:, None] - 1).squeeze(1)
            ends[active[done], 1] = margins[done].gather(1, place[done, None]).squeeze(1)
            first[active[done]] = tried - 1 + place[done]
            active = active[~done]
            tried += len(ahead)
        return first, ends

    def narrow(self, rows: Tensor, ends: Tensor, margins: Tensor, tolerance: float) -> Tensor:
        """Narrow intervals of the given rows (M,), right below and wrong above, and give their upper ends.

        Tried is where a straight line through the margins is 0, moved a little towards the middle: if that
        is on the other side of the crossing, the interval is narrow enough at once. The middle itself is
        tried where a margin is not known and after every step that did not halve the interval, so that no
        margin takes more than twice the steps of halving.

        Args:
            rows: which images, shape (M,).
            ends: lower and upper ε, shape (M, 2).
            margins: the margins there, shape (M, 2), nan where not known.
            tolerance: length that is short enough.
        """
        upper = ends[:, 1].clone()
        active = torch.arange(len(rows), device=rows.device)
        halved = torch.ones_like(upper, dtype=torch.bool)
        while len(active):
            lower_end, upper_end = ends.unbind(dim=1)
            length = upper_end - lower_end
            middle = lower_end + length / 2
            guess = lower_end + length * margins[:, 0] / (margins[:, 0] - margins[:, 1])
            guess = guess + (middle - guess).clamp(-tolerance / 3, tolerance / 3)
            inside = (lower_end < guess) & (guess < upper_end)  # False of nan
            tried = torch.where(halved & inside, guess, middle)
            found = self.margins(rows[active], tried)
            side = (found > 0).long()[:, None]
            ends, margins = ends.scatter(1, side, tried[:, None]), margins.scatter(1, side, found[:, None])
            upper[active] = ends[:, 1]
            left = ends[:, 1] - ends[:, 0]
            # At tolerances below what float64 resolves the middle ends on one of the two
            going = (left > tolerance) & (left > 1e-15)
            halved = left <= length / 2
            active, ends, margins, halved = active[going], ends[going], margins[going], halved[going]
        return upper

    def _batches(self, count: int) -> list[slice]:
        size = self.classifier.batch_size
        return [slice(start, start + size) for start in range(0, count, size)]
