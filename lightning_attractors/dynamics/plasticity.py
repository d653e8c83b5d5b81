"""Local learning without labels: the plasticity rule of Krotov and Hopfield (PNAS 2019), and its filters.

A patch v of unit p-norm drives unit k with the current ⟨W_k, v⟩_k = Σ_i |W_ki|^(p−2) W_ki v_i, and changes
its filter by

    ΔW_k = g(rank of k) [v − ⟨W_k, v⟩_k W_k],    g = 1 for the strongest unit, −Δ for the m-th, 0 for others,

which pulls filters to unit p-norm. Two units of a patch learn, so the update adds two rows per patch. What
remains beside the product that gives the currents is the choice of the m-th strongest unit:
`examples/benchmark.py kh` measures both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_attractors.errors import require
from lightning_attractors.linalg import product_dtype

RankingName = Literal["current", "activity"]

# Patches at a time: their currents stay in the cache between the product and the choice of units.
_CHUNK = 2048
# Images at a time are unfolded into patches.
_IMAGES = 16
# In the forward pass patches of a smaller norm count as if they had this one: the gradient grows as 1 / norm.
_SMALLEST_NORM = 1e-6


@torch.no_grad()
def plasticity_update(
    patches: Tensor, filters: Tensor, p: float, m: int, delta: float, ranking: RankingName = "current"
) -> Tensor:
    """Sum over patches of what they would change in the filters, before the learning rate.

    It is a plain sum, so that shares of a batch may be added up before :func:`normalized_update`. Of units
    with equal currents the one with the lowest index ranks first. The product that ranks the units runs in
    the dtype that autocast asks for; all else is computed in that of the arguments and added up in float64.

    Args:
        patches: v, shape (P, D), of any norm: they are scaled to unit p-norm here. Patches of zeros change
            nothing.
        filters: W, shape (F, D).
        p: exponent of the norm, at least 2.
        m: rank of the unit that is pushed away, in [2, F].
        delta: anti-Hebbian strength Δ, at least 0.
        ranking: by the ``current``, as the authors' code does, or by the ``activity``, the current divided
            by the filter's own scale ⟨W_k, W_k⟩_k^((p−1)/p), as they write; the same for unit p-norms.

    Returns:
        Σ g [v − ⟨W_k, v⟩_k W_k], shape (F, D).

    Raises:
        SettingError: if p, m, delta or ranking is out of range.

    Example:
        >>> filters = torch.eye(2)
        >>> plasticity_update(torch.tensor([[2.0, 1.0]]), filters, p=2, m=2, delta=0.5)
        tensor([[ 0.0000,  0.4472],
                [-0.4472,  0.0000]])
    """
    check_plasticity(len(filters), p, m, delta, ranking)
    chunks = (_unit_patches(chunk, p) for chunk in patches.split(_CHUNK))
    return _update(chunks, filters, p, m, delta, ranking)


def normalized_update(update: Tensor) -> Tensor:
    """The update divided by its largest absolute entry, as published; an update of zeros stays one."""
    largest = update.abs().max()
    return update / torch.where(largest > 0, largest, 1)


def signed_power(filters: Tensor, p: float) -> Tensor:
    """|W|^(p−2) W, elementwise: what a filter of the p-norm multiplies a patch with."""
    return filters.sign() * _power(filters.abs(), p - 1)


def check_plasticity(num_filters: int, p: float, m: int, delta: float, ranking: RankingName) -> None:
    """Check the settings of a plasticity rule.

    Raises:
        SettingError: naming the one that cannot work.
    """
    require(2 <= p < math.inf, "p", p, "must be finite and at least 2")
    require(2 <= m <= num_filters, "m", m, f"must be between 2 and the number of filters, {num_filters}")
    require(0 <= delta < math.inf, "delta", delta, "must be at least 0")
    require(ranking in get_args(RankingName), "ranking", ranking, f"must be one of {get_args(RankingName)}")


def _update(
    chunks: Iterable[Tensor], filters: Tensor, p: float, m: int, delta: float, ranking: RankingName
) -> Tensor:
    """The update of patches (n, D) that have unit norm, a chunk at a time."""
    dtype = product_dtype(filters)
    with torch.autocast(filters.device.type, enabled=False):
        weights = signed_power(filters, p)
        if ranking == "activity":
            weights = weights / _scales(filters, p)
        weights = weights.to(dtype)
        first, opposed = torch.zeros(2, *filters.shape, dtype=torch.float64, device=filters.device)
        for patches in chunks:
            scores = (weights @ patches.T.to(dtype)).to(filters.dtype)
            for total, units in zip((first, opposed), _learners(scores, m), strict=True):
                total += torch.zeros_like(filters).index_add_(0, units, patches)
        # The rule is linear in v, so the sum over a unit's patches goes through it as one patch would.
        attracted, exact = first - delta * opposed, filters.double()
        currents = (signed_power(exact, p) * attracted).sum(dim=1, keepdim=True)
        return (attracted - currents * exact).to(filters.dtype)


def _scales(filters: Tensor, p: float) -> Tensor:
    """⟨W_k, W_k⟩_k^((p−1)/p), shape (F, 1), by which a current becomes an activity."""
    scales = _power(filters.abs(), p).sum(dim=1, keepdim=True).pow((p - 1) / p)
    return torch.where(scales > 0, scales, 1)  # a filter of zeros has activity 0


def _power(size: Tensor, exponent: float) -> Tensor:
    """Elements ≥ 0 to a power of at least 1; small whole powers by multiplication, several times faster."""
    whole = exponent == int(exponent) and exponent <= 8
    return functools.reduce(torch.mul, [size] * int(exponent)) if whole else size.pow(exponent)


def _unit_patches(patches: Tensor, p: float) -> Tensor:
    """Patches (P, D) scaled to unit p-norm, zeros left as they are."""
    # Divided by the largest entry first: powers of small entries would vanish.
    largest = patches.abs().amax(dim=1, keepdim=True)
    scaled = patches / torch.where(largest > 0, largest, 1)
    powers = _power(scaled.abs(), p)
    norms = powers.sum(dim=1, keepdim=True).pow(1 / p)
    return scaled / norms.clamp(min=1)  # 1 is the least, except for zeros


def _learners(scores: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The strongest unit and the m-th strongest of each patch, (P,) each; overwrites the scores (F, P)."""
    if scores.shape[1] == 0:  # which pooling refuses
        none = torch.zeros(0, dtype=torch.int64, device=scores.device)
        return none, none
    # Units as the height of an image whose channels, stored last, are the patches: its max-pooling is the
    # one argmax in torch that is vectorised, several times faster than max or topk.
    image = scores.view(1, scores.shape[0], 1, scores.shape[1]).permute(0, 3, 1, 2)
    ranked: list[Tensor] = []
    for _ in range(m):
        if ranked:
            scores.scatter_(0, ranked[-1][None], -math.inf)
        _, units = functional.max_pool2d_with_indices(image, (scores.shape[0], 1))
        ranked.append(units.flatten())
    return ranked[0], ranked[-1]


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
            yield self._update(patches.split(_CHUNK), m, delta, ranking)

    def extra_repr(self) -> str:
        """What it shows of itself when printed."""
        filters, channels, width, _ = self.weight.shape
        return f"{channels}, {filters}, kernel_size={width}, p={self.p}"

    def _update(self, chunks: Iterable[Tensor], m: int, delta: float, ranking: RankingName) -> Tensor:
        """The update (F, C, w, w) of patches (n, w·w·C) of unit norm."""
        filters = self.weight.permute(0, 2, 3, 1)
        update = _update(chunks, filters.flatten(1), self.p, m, delta, ranking)
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
            yield from patches.split(_CHUNK)

    def _patch_norms(self, images: Tensor) -> Tensor:
        """p-norms of all patches, shape (B, 1, H−w+1, W−w+1), in float32 under autocast too."""
        # In a unit between the smallest norm and 1, whose powers stay clear of both ends of float32.
        unit = math.sqrt(_SMALLEST_NORM)
        powers = _power((images / unit).abs(), self.p).sum(dim=1, keepdim=True)
        # The sum over a window: an average with divisor 1.
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
