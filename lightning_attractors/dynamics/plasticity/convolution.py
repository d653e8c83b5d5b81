"""Convolutional filters that learn by the rule of Krotov and Hopfield."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_attractors.dynamics.plasticity.rule import (
    CHUNK,
    RankingName,
    check_plasticity,
    power,
    signed_power,
    summed_update,
)
from lightning_attractors.errors import require

# Images at a time are unfolded into patches.
_IMAGES = 16
# In the forward pass patches of a smaller norm count as if they had this one: the gradient grows as 1 / norm.
_SMALLEST_NORM = 1e-6


class KHConv2d(nn.Module):
    """Convolution of normalised patches with filters that learn by the Krotov–Hopfield rule.

    The output at a position is the current ⟨W_k, v⟩_k of the patch v there, scaled to unit p-norm. Stride 1,
    no padding.

    Args:
        in_channels: channels C of the images, at least 1.
        num_filters: number of filters F, at least 2.
        kernel_size: side w of a patch, at least 1.
        p: exponent of the norm, in [2, 8]; the powers of pixels must be within float32.

    Attributes:
        weight: the filters W, shape (F, C, w, w); they start at N(0, 1).

    Raises:
        SettingError: if a setting is out of range.
    """

    def __init__(self, in_channels: int, num_filters: int, kernel_size: int, p: float) -> None:
        super().__init__()
        require(in_channels >= 1, "in_channels", in_channels, "must be at least 1")
        require(num_filters >= 2, "num_filters", num_filters, "must be at least 2")
        require(kernel_size >= 1, "kernel_size", kernel_size, "must be at least 1")
        require(2 <= p <= 8, "p", p, "must be between 2 and 8")
        self.kernel_size = kernel_size
        self.p = p
        self.weight = nn.Parameter(torch.randn(num_filters, in_channels, kernel_size, kernel_size))

    def forward(self, images: Tensor) -> Tensor:
        """Currents (B, F, H−w+1, W−w+1) of images (B, C, H, W), differentiable in the images.

        Patches whose p-norm is below 1e-6 count as if it were 1e-6, which bounds the gradient; those of
        zeros have currents 0.

        Raises:
            SettingError: if the kernel is larger than the images.
        """
        self._check_size(images)
        currents = functional.conv2d(images, signed_power(self.weight, self.p))
        return currents / self._patch_norms(images)

    @torch.no_grad()
    def plasticity(
        self,
        images: Tensor,
        m: int,
        delta: float,
        ranking: RankingName = "current",
        fraction: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The :func:`plasticity_update` of all patches of images (B, C, H, W), shape (F, C, w, w).

        Args:
            images: the images.
            m: rank of the unit that is pushed away, in [2, F].
            delta: anti-Hebbian strength Δ, at least 0.
            ranking: see :func:`plasticity_update`.
            fraction: share of the patches that is used, in (0, 1], at least one of them.
            generator: draws which ones, on the CPU.

        Raises:
            SettingError: if a setting is out of range or the kernel is larger than the images.
        """
        self._check(images, m, delta, ranking, fraction)
        return self._update(self._chunks(images, fraction, generator), m, delta, ranking)

    @torch.no_grad()
    def plasticity_by_position(
        self,
        images: Tensor,
        m: int,
        delta: float,
        ranking: RankingName = "current",
        fraction: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """One :func:`plasticity_update` after another, each of the patches at one position of all images.

        Each is computed from the filters as they are when it is asked for, so that they can learn between
        two of them: N images of P positions are P updates of N patches. Filters that start at N(0, 1) need
        that many to converge in the published number of epochs.

        Args:
            images: the images, shape (N, C, H, W).
            m: rank of the unit that is pushed away, in [2, F].
            delta: anti-Hebbian strength Δ, at least 0.
            ranking: see :func:`plasticity_update`.
            fraction: share of the positions that is used, in (0, 1], at least one of them.
            generator: draws which ones, and their order, on the CPU; processes that add up their updates
                must draw alike.

        Yields:
            Updates, shape (F, C, w, w).

        Raises:
            SettingError: if a setting is out of range or the kernel is larger than the images.
        """
        self._check(images, m, delta, ranking, fraction)
        windows, norms = self._windows(images)
        count = windows.shape[1] * windows.shape[2]
        order = torch.randperm(count, generator=generator)[: max(1, round(fraction * count))]
        for position in order.tolist():
            here = (slice(None), *divmod(position, windows.shape[2]))
            patches = windows[here].flatten(1) / norms[here]
            yield self._update(patches.split(CHUNK), m, delta, ranking)

    def extra_repr(self) -> str:
        """What it shows of itself when printed."""
        filters, channels, width, _ = self.weight.shape
        return f"{channels}, {filters}, kernel_size={width}, p={self.p}"

    def _update(self, chunks: Iterable[Tensor], m: int, delta: float, ranking: RankingName) -> Tensor:
        """The update (F, C, w, w) of patches (n, w·w·C) of unit norm."""
        filters = self.weight.permute(0, 2, 3, 1)
        update = summed_update(chunks, filters.flatten(1), self.p, m, delta, ranking)
        return update.view(filters.shape).permute(0, 3, 1, 2).contiguous()

    def _windows(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All patches, a view (B, H−w+1, W−w+1, w, w, C), and their norms, (B, H−w+1, W−w+1, 1)."""
        images = images.to(self.weight.dtype)
        width = self.kernel_size
        # Channels last, in which patches are copied several times faster.
        windows = images.permute(0, 2, 3, 1).contiguous().unfold(1, width, 1).unfold(2, width, 1)
        return windows.permute(0, 1, 2, 4, 5, 3), self._patch_norms(images).permute(0, 2, 3, 1)

    def _chunks(self, images: Tensor, fraction: float, generator: torch.Generator | None) -> Iterator[Tensor]:
        """The patches, scaled to unit norm, a chunk (n, w·w·C) at a time."""
        windows, norms = self._windows(images)
        per_image = norms[0].numel()
        mask = None if fraction == 1 else _random_mask(norms.numel(), fraction, generator)
        for start in range(0, len(images), _IMAGES):
            group = slice(start, start + _IMAGES)
            patches = windows[group].reshape(-1, self.weight[0].numel()) / norms[group].reshape(-1, 1)
            if mask is not None:
                patches = patches[mask[start * per_image :][: len(patches)].to(patches.device)]
            yield from patches.split(CHUNK)

    def _patch_norms(self, images: Tensor) -> Tensor:
        """p-norms of all patches, shape (B, 1, H−w+1, W−w+1), in float32 under autocast too."""
        # In a unit between the smallest norm and 1, whose powers stay clear of both ends of float32.
        unit = math.sqrt(_SMALLEST_NORM)
        powers = power((images / unit).abs(), self.p).sum(dim=1, keepdim=True)
        # The sum over a window: an average with divisor 1, which ONNX does not know.
        if torch.compiler.is_exporting():
            sums = self.kernel_size**2 * functional.avg_pool2d(powers, self.kernel_size, stride=1)
        else:
            sums = functional.avg_pool2d(powers, self.kernel_size, stride=1, divisor_override=1)
        return unit * sums.clamp(min=(_SMALLEST_NORM / unit) ** self.p).pow(1 / self.p)

    def _check(self, images: Tensor, m: int, delta: float, ranking: RankingName, fraction: float) -> None:
        self._check_size(images)
        check_plasticity(len(self.weight), self.p, m, delta, ranking)
        require(0 < fraction <= 1, "fraction", fraction, "must be above 0 and at most 1")

    def _check_size(self, images: Tensor) -> None:
        size = min(images.shape[2:])
        require(
            self.kernel_size <= size, "kernel_size", self.kernel_size, f"must be at most the image's {size}"
        )


def _random_mask(count: int, fraction: float, generator: torch.Generator | None) -> Tensor:
    """A mask (count,) that is true at a random share of places, at least one."""
    order = torch.randperm(count, generator=generator)
    return torch.zeros(count, dtype=torch.bool).index_fill_(0, order[: max(1, round(fraction * count))], True)
