"""Any vector field, made to vanish at chosen attractors."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attractors.dynamics.integrate import VectorField
from lightning_attractors.errors import require


def dual_basis(attractors: Tensor) -> Tensor:
    """The columns (N, K) that read off how much of each attractor is in a state: Φ⁺, so that Φ Φ⁺ = I.

    Args:
        attractors: Φ, shape (K, N).

    Raises:
        SettingError: if they are not linearly independent.
    """
    rank, count = int(torch.linalg.matrix_rank(attractors.double())), len(attractors)
    require(rank == count, "attractors", f"rank {rank}", f"must be {count} that are linearly independent")
    return torch.linalg.pinv(attractors.double()).to(attractors)


class PlantedField:
    r"""F(x) = G(x) − Σ_k c_k(x) G(φ_k) with c(x) = x Φ⁺, which vanishes at every attractor φ_k.

    What G has at the attractors is taken away, linearly in the state: nothing where G vanishes there already.
    Of a linear coupling, G(x) = r(x) + W x with r(φ_k) = 0, that leaves W (I − Φ⁺Φ), the projected one.

    Args:
        field: G, of states (..., N).
        attractors: Φ, shape (K, N).
        dual: Φ⁺ as :func:`dual_basis` gives it, shape (N, K).

    Example:
        >>> attractors = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]])
        >>> field = PlantedField(lambda x: x.cos(), attractors, dual_basis(attractors))
        >>> bool(field(attractors).abs().max() < 1e-6)
        True
    """

    def __init__(self, field: VectorField, attractors: Tensor, dual: Tensor) -> None:
        self.field = field
        self.dual = dual
        self.excess = field(attractors).to(attractors.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """F(x) for states of shape (..., N)."""
        own = self.field(x).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return own - (x @ self.dual) @ self.excess
