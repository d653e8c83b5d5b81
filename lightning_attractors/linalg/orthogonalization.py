"""Matrices brought near the closest isometries, by Newton-Schulz iterations on whole batches."""

from __future__ import annotations

import torch
from torch import Tensor

# Chosen by Jordan et al. (2024) for the steepest rise at 0: singular values end up in about [0.7, 1.2].
STEEPEST_QUINTIC = (3.4445, -4.7750, 2.0315)


@torch.no_grad()
def orthogonalize(
    matrices: Tensor,
    coefficients: tuple[float, float, float] = STEEPEST_QUINTIC,
    steps: int = 5,
    eps: float = 1e-7,
) -> Tensor:
    """U p(p(…p(S / ‖S‖))) Vᵀ of M = U S Vᵀ, with the odd polynomial p(s) = a s + b s³ + c s⁵.

    Every step takes three products, in the dtype of the matrices. With (1.5, −0.5, 0) singular values tend
    to 1; the default coefficients rise faster and leave them between about 0.7 and 1.2.

    Args:
        matrices: M, shape (..., O, I), floating point.
        coefficients: a, b and c.
        steps: number of steps, at least 1.
        eps: Frobenius norms below count as this one.

    Returns:
        The same shape and dtype.

    Example:
        >>> orthogonalize(torch.diag(torch.tensor([3.0, 4.0])), (1.5, -0.5, 0.0), steps=12)
        tensor([[1., 0.],
                [0., 1.]])
    """
    a, b, c = coefficients
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = (matrices.mT if tall else matrices).reshape(-1, *sorted(matrices.shape[-2:]))
    # One large matrix is faster through the products of two matrices than through those of batches.
    wide = wide[0] if len(wide) == 1 else wide
    multiply_add = torch.addmm if wide.ndim == 2 else torch.baddbmm
    wide = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.mT
        polynomial = multiply_add(gram, gram, gram, beta=b, alpha=c)
        wide = multiply_add(wide, polynomial, wide, beta=a)
    return (wide.mT if tall else wide).reshape(matrices.shape)
