"""Are gradients masked? What attacks without this model's gradients find that one with them does not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_attractors.errors import SettingError, require
from lightning_attractors.norms import distances
from lightning_attractors.robustness.attacks import Classifier, Logits, Square, pgd_radii
from lightning_attractors.robustness.randomness import seed_all

_STEPS, _STEP = 40, 1 / 255
# How much farther than the strength float32 images can lie.
_ROUNDING = 1e-6
# Training of the substitute, full-batch.
_EPOCHS, _RATE = 200, 0.01


@dataclass(frozen=True)
class MaskingCheck:
    """Attacks of one strength on the same images, with the model's gradients and without.

    Attributes:
        strength: ε of all of them in L∞.
        images: how many images were attacked, all classified correctly.
        white_box: how many PGD broke, with the model's gradients.
        black_box: how many Square broke, which sees logits only.
        transferred: how many were broken by perturbations that break a linear model which was trained to
            give this model's classes.
        only_black_box: how many Square broke and PGD did not.
        only_transferred: how many the transferred perturbations broke and PGD did not.
        vanished: how many images had a gradient of 0 in every pixel.
    """

    strength: float
    images: int
    white_box: int
    black_box: int
    transferred: int
    only_black_box: int
    only_transferred: int
    vanished: int

    @property
    def masked(self) -> bool:
        """Whether gradients vanish, or an attack without them breaks clearly more images than PGD.

        The images that only one of two attacks breaks are compared as in McNemar's test, at two standard
        deviations.
        """
        return self.vanished > 0 or any(
            clearly_more(only, only + self.white_box - broken)
            for only, broken in (
                (self.only_black_box, self.black_box),
                (self.only_transferred, self.transferred),
            )
        )

    @property
    def sentence(self) -> str:
        """The finding, in words."""
        found = (
            f"at ε = {self.strength:.4g} PGD broke {self.white_box} of {self.images} images, Square "
            f"{self.black_box} ({self.only_black_box} that PGD spared) and perturbations of a linear "
            f"substitute {self.transferred} ({self.only_transferred} that PGD spared)"
        )
        if self.vanished:
            return f"Gradients ARE masked: they vanish at {self.vanished} of {self.images} images; {found}."
        if self.masked:
            return f"Gradients ARE masked: attacks without them find more; {found}. The radii are too large."
        return f"No sign of masked gradients: {found}."


def check_masking(
    logits_fn: Logits, images: Tensor, labels: Tensor, batch_size: int, queries: int = 200, seed: int = 0
) -> MaskingCheck | None:
    """Attack some images with and without gradients, at the median of their PGD radii.

    PGD takes 40 steps of 1/255; where it breaks fewer than half of the images, ε is 40/255. Changes the
    global random numbers.

    Args:
        logits_fn: gives the logits (B, K) of images (B, C, H, W) in [0, 1].
        images: (N, C, H, W), in [0, 1].
        labels: (N,), int64.
        batch_size: how many images are given to ``logits_fn`` at a time at most, at least 1.
        queries: of Square per image, at least 1.
        seed: of the random numbers of Square, at least 0.

    Returns:
        What was found of the images that are classified correctly; None if there is none.
    """
    require(queries >= 1, "queries", queries, "must be at least 1")
    classifier = Classifier(logits_fn, images, labels, batch_size)
    classes = torch.cat([_classes(logits_fn, part) for part in images.split(batch_size)])
    rows = (classes == labels).nonzero().squeeze(1)
    if not len(rows):
        return None
    substitute = _substitute(images, classes)
    images, labels = images[rows], labels[rows]
    largest = _STEPS * _STEP
    found = pgd_radii(logits_fn, images, labels, largest, _STEP, _STEPS, batch_size)
    median = float(found.radii.median())
    strength = median if math.isfinite(median) else largest
    white = found.radii <= strength + _ROUNDING
    seed_all([seed])
    square = Square(queries)
    moved = torch.cat(
        [
            square(logits_fn, part, of, strength)
            for part, of in zip(images.split(batch_size), labels.split(batch_size), strict=True)
        ]
    )
    black = _broken(classifier, moved, images, labels, strength)
    carried = _broken(classifier, _steepest(substitute, images, labels, strength), images, labels, strength)
    return MaskingCheck(
        strength=strength,
        images=len(rows),
        white_box=int(white.sum()),
        black_box=int(black.sum()),
        transferred=int(carried.sum()),
        only_black_box=int((black & ~white).sum()),
        only_transferred=int((carried & ~white).sum()),
        vanished=int(found.gradient_vanished.sum()),
    )


def clearly_more(ours: int, theirs: int) -> bool:
    """Whether one of two attacks breaks more, from the images that only it and only the other breaks.

    As in McNemar's test, at two standard deviations.
    """
    return ours - theirs > 2 * math.sqrt(ours + theirs)


@torch.no_grad()
def _classes(logits_fn: Logits, images: Tensor) -> Tensor:
    return logits_fn(images).argmax(dim=1)


def _substitute(images: Tensor, classes: Tensor) -> nn.Linear:
    """A linear classifier, trained to give the classes that the model gives."""
    with torch.inference_mode(False), torch.enable_grad():
        inputs, answers = images.clone().flatten(1).float(), classes.clone()
        linear = nn.Linear(inputs.shape[1], int(answers.max()) + 1, device=images.device)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        optimizer = torch.optim.Adam(linear.parameters(), lr=_RATE)
        for _ in range(_EPOCHS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(linear(inputs), answers).backward()
            optimizer.step()
    return linear.requires_grad_(False)


def _steepest(linear: nn.Linear, images: Tensor, labels: Tensor, strength: float) -> Tensor:
    """The FGSM images of a linear classifier: one step, as its gradient points the same way everywhere."""
    logits = linear(images.flatten(1).float())
    # ∇ of the cross-entropy: Wᵀ(softmax − one-hot)
    pull = logits.softmax(dim=1)
    pull[torch.arange(len(labels)), labels] -= 1
    step = (pull @ linear.weight).sign().view_as(images)
    return (images + strength * step).clamp(0, 1)


def _broken(classifier: Classifier, moved: Tensor, images: Tensor, labels: Tensor, strength: float) -> Tensor:
    """Which images are misclassified, and not farther away than the strength (and float32's rounding)."""
    farthest = float(distances(moved, images, "linf").max())
    if farthest > strength + _ROUNDING:
        raise SettingError("strength", strength, f"was not kept by an attack: it went {farthest:.4g} away")
    parts = zip(moved.split(classifier.batch_size), labels.split(classifier.batch_size), strict=True)
    return torch.cat([classifier.is_wrong(part, of) for part, of in parts])
