"""Local learning without labels: the plasticity rule of Krotov and Hopfield (PNAS 2019).

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
from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from lightning_attractors.errors import require
from lightning_attractors.linalg import product_dtype

RankingName = Literal["current", "activity"]

# Patches at a time: their currents stay in the cache between the product and the choice of units.
CHUNK = 2048


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
    chunks = (_unit_patches(chunk, p) for chunk in patches.split(CHUNK))
    return summed_update(chunks, filters, p, m, delta, ranking)


def normalized_update(update: Tensor) -> Tensor:
    """The update divided by its largest absolute entry, as published; an update of zeros stays one."""
    largest = update.abs().max()
    return update / torch.where(largest > 0, largest, 1)


def signed_power(filters: Tensor, p: float) -> Tensor:
    """|W|^(p−2) W, elementwise: what a filter of the p-norm multiplies a patch with."""
    return filters.sign() * power(filters.abs(), p - 1)


def check_plasticity(num_filters: int, p: float, m: int, delta: float, ranking: RankingName) -> None:
    """Check the settings of a plasticity rule.

    Raises:
        SettingError: naming the one that cannot work.
    """
    require(2 <= p < math.inf, "p", p, "must be finite and at least 2")
    require(2 <= m <= num_filters, "m", m, f"must be between 2 and the number of filters, {num_filters}")
    require(0 <= delta < math.inf, "delta", delta, "must be finite and at least 0")
    require(ranking in get_args(RankingName), "ranking", ranking, f"must be one of {get_args(RankingName)}")


def summed_update(
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
    scales = power(filters.abs(), p).sum(dim=1, keepdim=True).pow((p - 1) / p)
    return torch.where(scales > 0, scales, 1)  # a filter of zeros has activity 0


def power(size: Tensor, exponent: float) -> Tensor:
    """Elements ≥ 0 to a power of at least 1; small whole powers by multiplication, several times faster."""
    whole = exponent == int(exponent) and exponent <= 8
    return functools.reduce(torch.mul, [size] * int(exponent)) if whole else size.pow(exponent)


def _unit_patches(patches: Tensor, p: float) -> Tensor:
    """Patches (P, D) scaled to unit p-norm, zeros left as they are."""
    # Divided by the largest entry first: powers of small entries would vanish.
    largest = patches.abs().amax(dim=1, keepdim=True)
    scaled = patches / torch.where(largest > 0, largest, 1)
    powers = power(scaled.abs(), p)
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
