"""Vector fields ẋ = F(x) of networks whose nodes react alone and couple linearly."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_attractors.dynamics.planted.gains import Gain
from lightning_attractors.dynamics.planted.pointwise import Cubic, Pointwise


class CoupledField(ABC):
    """F(x) = r(x) + W s(x): nodes react alone, r, and couple linearly through what they emit, s.

    Prepared once per forward pass, so that W is formed once and not once per step. The product runs in the
    dtype that autocast asks for; the state and everything else keep the dtype of x.

    Attributes:
        coupling: W, shape (N, N).
    """

    coupling: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """F(x) for states of shape (..., N)."""
        coupled = torch.nn.functional.linear(self.emission(x), self.coupling)
        return self.reaction(x) + coupled.to(x.dtype)

    @abstractmethod
    def reaction(self, x: Tensor) -> Tensor:
        """r(x), node by node."""

    @abstractmethod
    def emission(self, x: Tensor) -> Tensor:
        """s(x), node by node."""

    def pointwise(self) -> tuple[Pointwise, Pointwise] | None:
        """R and s with bounds of their derivatives, for certificates of basins; None, and there are none."""
        return None


class DoubleWellField(CoupledField):
    r"""F(x) = 4 γ x (a² − x²) + W x, a double well per node (Marino et al., 2024).

    Args:
        coupling: W = β A, shape (N, N).
        gamma: strength γ ≥ 0 of the wells, a scalar tensor.
        a: position of the wells, above 0.
    """

    def __init__(self, coupling: Tensor, gamma: Tensor, a: float) -> None:
        self.coupling = coupling
        self.gamma = gamma
        self.a = a

    def reaction(self, x: Tensor) -> Tensor:
        return 4 * self.gamma * x * (self.a**2 - x * x)

    def emission(self, x: Tensor) -> Tensor:
        return x

    def pointwise(self) -> tuple[Pointwise, Pointwise]:
        gamma = self.gamma.item()
        return Cubic(4 * gamma * self.a**2, -4 * gamma), Cubic(1.0)


class FiringRateField(CoupledField):
    r"""F(x) = −x + W f(x), synaptic currents x and firing rates f(x) (Chicchi et al., 2024).

    Args:
        coupling: W = β A, shape (N, N).
        gain: f.
    """

    def __init__(self, coupling: Tensor, gain: Gain) -> None:
        self.coupling = coupling
        self.gain = gain

    def reaction(self, x: Tensor) -> Tensor:
        return -x

    def emission(self, x: Tensor) -> Tensor:
        return self.gain(x)

    def pointwise(self) -> tuple[Pointwise, Pointwise] | None:
        bounded = self.gain.pointwise()
        return None if bounded is None else (Cubic(-1.0), bounded)
