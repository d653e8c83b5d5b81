"""Vector fields ẋ = F(x) of networks whose nodes react alone and couple linearly."""

from __future__ import annotations

import torch
from torch import Tensor


class DoubleWellField:
    r"""F(x) = 4 γ x (a² − x²) + W x, a double well per node and a linear coupling (Marino et al., 2024).

    Prepared once per forward pass, so that W = β A is formed once and not once per step. The product runs
    in the dtype that autocast asks for; the state and everything else keep the dtype of x.

    Args:
        coupling: W = β A, shape (N, N).
        gamma: strength γ ≥ 0 of the wells, a scalar tensor.
        a: position of the wells, above 0.
    """

    def __init__(self, coupling: Tensor, gamma: Tensor, a: float) -> None:
        self.coupling = coupling
        self.gamma = gamma
        self.a = a

    def __call__(self, x: Tensor) -> Tensor:
        """F(x) for states of shape (..., N)."""
        reaction = 4 * self.gamma * x * (self.a**2 - x * x)
        return reaction + torch.nn.functional.linear(x, self.coupling).to(x.dtype)
