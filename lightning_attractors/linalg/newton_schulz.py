"""One Newton-Schulz step of a matrix towards an isometry, with a norm that costs no further products."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_attractors.linalg.gram_iteration import gram_bounds, largest_eigenvalues, products_are_exact

# By how much the rounding of float32 may lift the norm before float64 is worth its time.
_EXCESS = 0.03
_LOOSENESS = 0.1
# Columns whose products are summed before they are added to the others.
_CHUNK = 256


@torch.no_grad()
def newton_schulz_step(weight: Tensor) -> tuple[Tensor, float]:
    """(3 W − W Wᵀ W) / 2 and its norm from above.

    The step takes singular values s to s(3 − s²)/2, and [0, 2] into [−1, 1]. So the Gram matrix that it needs
    anyway shows that the result has a norm of at most 1, but for rounding, of which there is a bound too.

    Args:
        weight: shape (O, I), floating point.

    Returns:
        The same shape, in float32 or float64, and the norm, at most 1.03; but an infinite one where that of W
        is not finite, or not seen to be at most 2.
    """
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    exact = products_are_exact() and weight.dtype != torch.float64
    with torch.autocast(weight.device.type, enabled=False):
        step, norm = _step(wide.float() if exact else wide.double())
        if 1 + _EXCESS < norm < math.inf and exact:
            step, norm = _step(wide.double())
    return step if wide is weight else step.mT, norm


def _step(wide: Tensor) -> tuple[Tensor, float]:
    rows, columns = wide.shape
    gram = wide.new_zeros(rows, rows)
    for part in wide.split(_CHUNK, dim=1):  # shorter sums have less rounding to cover
        gram.addmm_(part, part.mT)
    longest = min(columns, _CHUNK) + math.ceil(columns / _CHUNK)
    underflow = rows * columns * torch.finfo(wide.dtype).tiny
    # read together, since a device is waited for every time
    ends = gram.diagonal().sum(dtype=torch.float64), largest_eigenvalues(gram[None])[1][0]
    squared, largest_squared = torch.stack(ends).tolist()
    frobenius = math.sqrt(squared + underflow) * (1 + 1e-3)
    gram_error = _gamma(longest, wide.dtype) * frobenius**2 + underflow
    norm = math.sqrt(largest_squared + gram_error)
    if norm > 2:  # products of the Gram matrix come closer
        norm = math.sqrt(float(gram_bounds(gram[None], _LOOSENESS)) + gram_error)
    if not norm <= 2:
        return wide, math.inf
    step = torch.addmm(wide, gram, wide, beta=1.5, alpha=-0.5)
    step_error = _gamma(rows, wide.dtype) * frobenius * (1.5 + 0.5 * norm * frobenius)
    largest = norm * (3 - norm**2) / 2 if norm < 1 else 1.0
    return step, largest + 0.5 * norm * gram_error + step_error


def _gamma(terms: int, dtype: torch.dtype) -> float:
    """Relative error of a sum of so many products, in any order, and of a few factors."""
    rounding = (terms + 8) * torch.finfo(dtype).eps / 2
    return rounding / (1 - rounding)
