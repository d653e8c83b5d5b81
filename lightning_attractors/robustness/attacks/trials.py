"""What is tried on a batch: a search for radii, or an attack at one strength after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_attractors.norms import NORMS, NormName, distances
from lightning_attractors.robustness.attacks.base import Logits
from lightning_attractors.robustness.attacks.classifier import Classifier
from lightning_attractors.robustness.attacks.radii import AdversarialRadii
from lightning_attractors.robustness.randomness import seed_all

Box = tuple[float, float]
EVERYWHERE: Box = (-math.inf, math.inf)
Search = Callable[..., AdversarialRadii]
# Logits, images, labels, strength and the key of the random numbers; gives the changed images.
Change = Callable[[Logits, Tensor, Tensor, float, Sequence[int]], Tensor]
# Of the float32 images, and of an attack's own projection: how much farther it goes than its strength.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Outcome:
    """What an attack did to a batch.

    Attributes:
        radii: the strength at which every image was first misclassified, shape (B,), float64: 0 where it was
            wrong to begin with, infinite where the attack failed.
        steps: number of steps to get there, shape (B,), int64; 0 where wrong, −1 where it failed.
        distances: the smallest distance at which an image was seen misclassified, in the norm and within the
            box that were asked for, shape (B,), float64; infinite where none was.
        bounded: whether an image was never moved farther than the strength, in that norm and but for
            rounding, nor out of the box, shape (B,), bool.
        adversarial: the images (B, C, H, W) at the strength of ``radii``, or the last ones.
        vanished: whether the gradient was 0 in every pixel, shape (B,), bool.
        withstood: whether each image was classified correctly at each strength of a sweep, shape (B, S),
            bool; None for a search.
    """

    radii: Tensor
    steps: Tensor
    distances: Tensor
    bounded: Tensor
    adversarial: Tensor
    vanished: Tensor
    withstood: Tensor | None = None


@dataclass(frozen=True)
class RadiusSearch:
    """A search for the adversarial radius of every image.

    Attributes:
        name: what it is called in files and plots.
        search: such as :func:`~lightning_attractors.robustness.pgd_radii`.
        arguments: of the search, beyond logits, images, labels and batch size.
        strengths: where the curve is tabulated; evenly up to the largest radius if empty.
    """

    name: str
    search: Search
    arguments: dict[str, Any]
    strengths: tuple[float, ...] = ()

    @property
    def norm(self) -> NormName:
        """The norm that radii are in."""
        return norm_of(self.arguments) or "linf"

    @property
    def reach(self) -> float | list[float]:
        """The largest strength that is tried, or all of them where it goes up in steps."""
        largest = float(self.arguments["largest"])
        if "steps" not in self.arguments:
            return largest
        size = self.arguments["step_size"]
        return [min(step * size, largest) for step in range(1, self.arguments["steps"] + 1)]

    def __call__(
        self, classifier: Classifier, key: Sequence[int], norm: NormName = "linf", box: Box = EVERYWHERE
    ) -> Outcome:
        """Attack the classifier's images (B, C, H, W); ``key`` is for logits that are random.

        The distances are in ``norm``, whatever norm the search is in, of images with all pixels in ``box``.
        """
        seed_all(key)
        images, labels, size = classifier.images, classifier.labels, classifier.batch_size
        found = self.search(classifier.logits_fn, images, labels, batch_size=size, **self.arguments)
        gone = distances(found.adversarial, images, norm)
        reached = found.radii.isfinite()
        inside = _inside(found.adversarial, box)
        bounded = inside & _within(gone, torch.where(reached, found.radii, self.arguments["largest"]))
        seen = torch.where(reached & inside, gone, math.inf)
        return Outcome(found.radii, found.steps, seen, bounded, found.adversarial, found.gradient_vanished)


@dataclass(frozen=True)
class StrengthSweep:
    """An attack or a corruption, applied at each of some strengths on its own.

    The radius of an image is the smallest |strength| that has it misclassified; what may happen between two
    strengths is not seen.

    Attributes:
        name: what it is called in files and plots.
        change: does it to images, at one strength.
        arguments: what else ``change`` was set to, for the record.
        strengths: at least one.
    """

    name: str
    change: Change
    arguments: dict[str, Any]
    strengths: tuple[float, ...]

    @property
    def norm(self) -> NormName | None:
        """The norm that strengths are distances in; None where that is not known, as of corruptions."""
        return norm_of(self.arguments)

    @property
    def reach(self) -> list[float]:
        """All strengths that are tried, without their sign, as radii have none."""
        return [abs(strength) for strength in self.strengths]

    def __call__(
        self, classifier: Classifier, key: Sequence[int], norm: NormName = "linf", box: Box = EVERYWHERE
    ) -> Outcome:
        """Attack the classifier's images (B, C, H, W), with the same random numbers at every strength.

        They are a function of ``key``. The distances are in ``norm``, whatever norm the attack keeps to, of
        images with all pixels in ``box``.
        """
        images, labels, size = classifier.images, classifier.labels, classifier.batch_size
        parts = [slice(start, start + size) for start in range(0, len(images), size)]
        wrong = torch.cat([classifier.is_wrong(images[part], labels[part]) for part in parts])
        radii = torch.where(wrong, 0.0, math.inf).double()
        nearest, adversarial, bounded = radii.clone(), images.clone(), torch.ones_like(wrong)
        withstood = torch.empty(len(images), len(self.strengths), dtype=torch.bool, device=images.device)
        for column in sorted(range(len(self.strengths)), key=lambda i: abs(self.strengths[i])):
            strength = self.strengths[column]
            moved = torch.cat([self._changed(classifier, part, strength, key) for part in parts])
            fails = torch.cat([classifier.is_wrong(moved[part], labels[part]) for part in parts])
            withstood[:, column] = ~fails
            gone = distances(moved, images, norm)
            inside = _inside(moved, box)
            bounded &= inside & _within(gone, abs(strength))
            nearest = torch.minimum(nearest, torch.where(fails & inside, gone, math.inf))
            open_still = radii.isinf()
            adversarial[open_still] = moved[open_still]
            radii = torch.where(open_still & fails, abs(strength), radii)
        steps = torch.where(radii.isinf(), -1, (radii > 0).long())
        flat = torch.zeros_like(wrong)
        return Outcome(radii, steps, nearest, bounded, adversarial, flat, withstood)

    def _changed(self, classifier: Classifier, part: slice, strength: float, key: Sequence[int]) -> Tensor:
        images, labels, key = classifier.images[part], classifier.labels[part], [*key, part.start]
        seed_all(key)
        with torch.inference_mode(False), torch.enable_grad():
            return self.change(classifier.logits_fn, images, labels, strength, key).detach().to(images)


def norm_of(arguments: Mapping[str, Any]) -> NormName | None:
    """The norm among the arguments of an attack, None where there is none that is known."""
    given = str(arguments.get("norm", "")).lower()
    return next((name for name in NORMS if name == given), None)


def _within(gone: Tensor, strength: Tensor | float) -> Tensor:
    return gone <= strength + _ROUNDING * (1 + strength)


def _inside(images: Tensor, box: Box) -> Tensor:
    """Whether all pixels of each image lie in a box, shape (B,), bool."""
    return ((images >= box[0]) & (images <= box[1])).flatten(1).all(dim=1)


Trial = RadiusSearch | StrengthSweep
