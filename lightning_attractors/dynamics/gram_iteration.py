"""Spectral norms of many matrices at once, bounded from above by squaring their Gram matrices.

With N = M / ‖M‖_F, ‖M‖₂² = ‖M‖_F² ‖N Nᴴ‖₂: each product squares the singular values, until the largest one
is nearly all that is left (Delattre et al., 2023, arXiv 2305.16173). The end is a bound of the largest
eigenvalue of a Hermitian matrix by its trace and Frobenius norm (Wolkowicz & Styan, 1980), which is at
most (1 + √r) / 2 times it for r rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def products_for(rows: int, looseness: float) -> int:
    """How many Gram products bound a norm within 1 + ``looseness``, for matrices with so many rows."""
    excess = (1 + math.sqrt(rows)) / 2
    return max(1, math.ceil(math.log2(math.log(excess) / math.log1p(looseness)))) if rows > 1 else 1


def product_error(inner: int, dtype: torch.dtype) -> float:
    """Bound of ‖fl(N Nᴴ) − N Nᴴ‖₂ / ‖N‖_F², for N with so many columns, real or complex.

    Each part of a complex entry is a sum of 2n products, in any order: γ_2n, times √2 for the two parts. The
    rest is room for the rounding of N itself and for underflow.
    """
    return 2 * (inner + 4) * torch.finfo(dtype).eps


def gram_bounds(matrices: Tensor, products: int) -> Tensor:
    """Upper bounds of the spectral norms of a batch of matrices; rounding is covered.

    Args:
        matrices: shape (F, r, n), with r ≤ n for speed, real or complex, finite, no larger than the square
            root of the largest number.
        products: how many Gram products, at least 1; see :func:`products_for`.

    Returns:
        Shape (F,), float64. Where a matrix is below 1e-12, 1e-12 may be added.
    """
    unit, errors, sizes = torch.finfo(matrices.dtype).eps, [], []
    for _ in range(products):
        size = _frobenius_norms(matrices).clamp(min=_SMALLEST)
        normal = matrices / size.to(matrices.dtype)[:, None, None]
        errors.append(product_error(matrices.shape[2], matrices.dtype))
        sizes.append(size)
        matrices = normal @ normal.mH
    bound = _largest_eigenvalues(matrices)
    for size, error in zip(reversed(sizes), reversed(errors), strict=True):
        bound = size * ((bound + error).sqrt() + unit)
    return bound * (1 + 1e-12)


_SMALLEST = 1e-12


def _frobenius_norms(matrices: Tensor) -> Tensor:
    parts = torch.view_as_real(matrices) if matrices.is_complex() else matrices
    return torch.linalg.vector_norm(parts.flatten(1), dim=1, dtype=torch.float64)


def _largest_eigenvalues(hermitian: Tensor) -> Tensor:
    """Mean + √(r − 1) · deviation of the eigenvalues; from above, as Wolkowicz and Styan show."""
    rows = hermitian.shape[1]
    mean = hermitian.diagonal(dim1=1, dim2=2).real.sum(dim=1, dtype=torch.float64) / rows
    variance = _frobenius_norms(hermitian).square() * (1 + 1e-12) / rows - mean.square()
    return mean + ((rows - 1) * variance.clamp(min=0)).sqrt()
