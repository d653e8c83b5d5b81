"""The vector field of gradient flows."""

from __future__ import annotations

from torch import Tensor

from lightning_attractors.dynamics.nonexpansive.monotone import Monotone
from lightning_attractors.dynamics.nonexpansive.operators import Operator


class GradientField:
    """F(x) = −Aᵀσ(Ax + b), minus the gradient of a convex potential since σ is monotone.

    Args:
        operator: A.
        bias: b, one number per feature or channel of A x.
        activation: σ.
    """

    def __init__(self, operator: Operator, bias: Tensor, activation: Monotone) -> None:
        self.operator = operator
        self.bias = bias
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        """F(x), of the shape of x: (B, features), or (B, channels, H, W) where A is a convolution."""
        current = self.operator(x) + self.bias.view(-1, *(1,) * (x.dim() - 2))
        return -self.operator.adjoint(self.activation(current))
