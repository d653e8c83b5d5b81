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

_SMALLEST = 1e-12


def products_for(rows: int, looseness: float) -> int:
    """How many Gram products bound a norm within 1 + ``looseness``, for matrices with so many rows."""
    excess = (1 + math.sqrt(rows)) / 2
    return max(1, math.ceil(math.log2(math.log(excess) / math.log1p(looseness)))) if rows > 1 else 1


def product_error(inner: int, dtype: torch.dtype) -> float:
    """Bound of ‖fl(N Nᴴ) − N Nᴴ‖₂ / ‖N‖_F², for N with so many columns, real or complex.

    Each part of a complex entry is a sum of 2n products, in any order: γ_2n, times √2 for the two parts. The
    rest is room for underflow, and for ‖M‖_F: it need not be more than roughly right.
    """
    return 2 * (inner + 4) * torch.finfo(dtype).eps


def products_are_exact() -> bool:
    """Whether products of float32 matrices are taken in float32, as ``product_error`` has it."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set for one backend, by torch.backends
        return False


def gram_bounds(matrices: Tensor, looseness: float) -> Tensor:
    """Upper bounds of the spectral norms of a batch of matrices; rounding is covered.

    The largest of them is at most 1 + ``looseness`` times the largest norm. A matrix whose bound has fallen
    below the norm of another one is left at that bound, to save its further products. Matrices near a
    multiple of an isometry need one product.

    Args:
        matrices: shape (F, r, n), with r ≤ n for speed, real or complex, finite, no larger than the square
            root of the largest number.
        looseness: above 0.

    Returns:
        Shape (F,), float64. Where a norm is below 1e-12, up to 1e-12 may be added.
    """
    bounds = torch.empty(len(matrices), dtype=torch.float64, device=matrices.device)
    active = torch.arange(len(matrices), device=matrices.device)
    sizes: list[Tensor] = []
    errors: list[float] = []
    for _ in range(products_for(matrices.shape[1], looseness)):
        size = _frobenius_norms(matrices, matrices.real.dtype).clamp(min=_SMALLEST)
        normal = matrices / size[:, None, None]
        sizes.append(size.double())
        errors.append(product_error(matrices.shape[2], matrices.dtype))
        matrices = normal @ normal.mH
        lower, upper = largest_eigenvalues(matrices)
        unit = torch.finfo(matrices.dtype).eps
        for factor, error in zip(reversed(sizes), reversed(errors), strict=True):
            lower, upper = factor * lower.sqrt(), factor * ((upper + error).sqrt() + unit)
        bounds[active] = upper * (1 + 1e-12)
        if upper.max() <= (1 + looseness) * lower.max():
            break
        keep = (upper >= lower.max()).nonzero().squeeze(1)
        if len(keep) < len(active):
            active, matrices = active[keep], matrices[keep]
            sizes = [size[keep] for size in sizes]
    return bounds


def _frobenius_norms(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    parts = torch.view_as_real(matrices) if matrices.is_complex() else matrices
    return torch.linalg.vector_norm(parts.flatten(1), dim=1, dtype=dtype)


def largest_eigenvalues(hermitian: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the largest eigenvalues, which are at least 0: Σλ² / Σλ, mean + √(r − 1) · deviation.

    Args:
        hermitian: Gram matrices, shape (F, r, r).

    Returns:
        From below and from above, each of shape (F,), float64.
    """
    rows = hermitian.shape[1]
    trace = hermitian.diagonal(dim1=1, dim2=2).real.sum(dim=1, dtype=torch.float64)
    squares = _frobenius_norms(hermitian, torch.float64).square()
    mean = trace / rows
    variance = (squares * (1 + 1e-12) / rows - mean.square()).clamp(min=0)
    return squares / trace.clamp(min=_SMALLEST), mean + ((rows - 1) * variance).sqrt()
