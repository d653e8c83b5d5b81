"""How far filters that learn locally have got: the f-score of Torvik (2023)."""

from __future__ import annotations

from torch import Tensor


def converged_filters(filters: Tensor, p: float, tolerance: float = 1e-6) -> Tensor:
    """Which filters detect a feature: all entries above 0 and a p-norm of 1 within the tolerance.

    Args:
        filters: shape (F, ...).
        p: exponent of the norm, at least 1.
        tolerance: largest distance of the norm from 1, above 0; the norm is computed in float64.

    Returns:
        Booleans, shape (F,).
    """
    flat = filters.detach().flatten(1).double()
    unit = (flat.norm(p=p, dim=1) - 1).abs() <= tolerance
    return unit & (flat > 0).all(dim=1)


def f_score(filters: Tensor, p: float, tolerance: float = 1e-6) -> float:
    """Share of :func:`converged_filters`, in [0, 1] (Torvik, 2023, section 8.1.1).

    Example:
        >>> import torch
        >>> f_score(torch.tensor([[0.6, 0.8], [-0.6, 0.8], [0.3, 0.4], [-0.6, -0.8]]), p=2)
        0.25
    """
    return converged_filters(filters, p, tolerance).double().mean().item()


def positive_share(filters: Tensor) -> float:
    """Share of filters (F, ...) whose entries are all above 0, in [0, 1]; no f-score is above it."""
    return (filters.detach().flatten(1) > 0).all(dim=1).double().mean().item()


def negative_share(filters: Tensor) -> float:
    """Share of filters (F, ...) whose entries are all below 0, in [0, 1].

    No patch of an image drives such a filter: it has been pushed away from all of them.
    """
    return (filters.detach().flatten(1) < 0).all(dim=1).double().mean().item()
