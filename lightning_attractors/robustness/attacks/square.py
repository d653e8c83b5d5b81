"""Square: an attack that sees logits only, by random search (Andriushchenko et al., 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.errors import require
from lightning_attractors.robustness.attacks.base import Logits, Strength, margins, per_image

# After how many of 10,000 queries the squares' area halves, as published; other numbers are scaled.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square:
    """Squares of x ± ε at random places, kept where they bring another class nearer; in L∞.

    It begins with vertical stripes of x ± ε, and its squares become smaller. The random numbers are torch's
    global ones.

    Args:
        queries: logits that are asked for of every image, at least 1; an image that is misclassified is left.
        share: of the pixels that the first square covers, above 0 and at most 1.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    queries: int = 5000
    share: float = 0.8

    def __post_init__(self) -> None:
        require(self.queries >= 1, "queries", self.queries, "must be at least 1")
        require(0 < self.share <= 1, "share", self.share, "must be above 0 and at most 1")

    @torch.no_grad()
    def __call__(self, logits_fn: Logits, images: Tensor, labels: Tensor, strength: Strength) -> Tensor:
        """The attacked images (B, C, H, W), of images in [0, 1] and labels (B,)."""
        stripes = _signs(images[:, :, :1])
        best = (images + per_image(strength) * stripes).clamp(0, 1)
        ahead = margins(logits_fn(best), labels)
        for asked in range(1, self.queries):
            left = (ahead <= 0).nonzero().squeeze(1)
            if not len(left):
                break
            reach = per_image(strength[left] if isinstance(strength, Tensor) else strength)
            change = reach * _signs(images[left][:, :, :1, :1])
            squares = self.squares(images[left], asked)
            moved = torch.where(squares, (images[left] + change).clamp(0, 1), best[left])
            found = margins(logits_fn(moved), labels[left])
            better = found > ahead[left]
            best[left[better]], ahead[left[better]] = moved[better], found[better]
        return best

    def squares(self, images: Tensor, asked: int) -> Tensor:
        """Where a square lies in every image, shape (B, 1, H, W), bool."""
        height, width = images.shape[2:]
        halvings = sum(asked * 10_000 > limit * self.queries for limit in _HALVINGS)
        side = round(math.sqrt(self.share / 2**halvings * height * width))
        side = max(1, min(side, height, width))
        rows, columns = (_stretch(images, size, side) for size in (height, width))
        return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)


def _signs(like: Tensor) -> Tensor:
    return torch.where(torch.rand_like(like) < 0.5, -1.0, 1.0).to(like)


def _stretch(images: Tensor, size: int, side: int) -> Tensor:
    """One stretch of a side's length among so many places in a row, for every image: (B, size), bool."""
    first = torch.randint(0, size - side + 1, (len(images), 1), device=images.device)
    places = torch.arange(size, device=images.device)
    return (places >= first) & (places < first + side)
