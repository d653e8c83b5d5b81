"""The vector field of nmODE."""

from __future__ import annotations

from torch import Tensor


class NMODEField:
    """F(y) = −λy + f_k{y + f_{k−1}[y + … + f_1(y + γ)]}, all f = sin², for one input (Luo, He and Yi, 2024).

    Args:
        gamma: γ = Wx + b, shape (..., neurons).
        decay: λ, a number or a scalar tensor.
        order: k, at least 1; with 1 it is −λy + sin²(y + γ).
    """

    def __init__(self, gamma: Tensor, decay: float | Tensor, order: int = 1) -> None:
        self.gamma = gamma
        self.decay = decay
        self.order = order

    def __call__(self, y: Tensor) -> Tensor:
        """F(y) for states of the shape of γ."""
        drive = self.gamma
        for _ in range(self.order):
            drive = (y + drive).sin().square()
        return drive - self.decay * y
