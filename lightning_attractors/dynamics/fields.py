"""Vector fields ẋ = F(x) of networks whose nodes react alone and couple linearly."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_attractors.dynamics.gains import Gain


class EulerStep(ABC):
    """One Euler step of a :class:`CoupledField` and its adjoint, written out for buffers of few passes.

    ``coupled`` is Δt W s(x) in :meth:`advance`, and Δt Wᵀ l in :meth:`pull_back`, where l is the adjoint.
    """

    @abstractmethod
    def emit(self, x: Tensor, out: Tensor) -> None:
        """Write s(x) to ``out``, in its dtype."""

    @abstractmethod
    def advance(self, x: Tensor, coupled: Tensor, out: Tensor) -> None:
        """Write x + Δt r(x) + ``coupled`` to ``out``."""

    @abstractmethod
    def pull_back(self, x: Tensor, adjoint: Tensor, coupled: Tensor, gradients: list[Tensor]) -> Tensor:
        """∂L/∂x = l (1 + Δt r′(x)) + ``coupled`` s′(x); adds ∂⟨l, x⁺⟩/∂parameters to ``gradients``."""


class CoupledField(ABC):
    """F(x) = r(x) + W s(x): nodes react alone, r, and couple linearly through what they emit, s.

    Prepared once per forward pass, so that W is formed once and not once per step. The product runs in the
    dtype that autocast asks for; the state and everything else keep the dtype of x.

    Attributes:
        coupling: W, shape (N, N).
        parameters: whatever else the field can be differentiated in.
    """

    coupling: Tensor
    parameters: tuple[Tensor, ...] = ()

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

    @abstractmethod
    def euler_step(self, dt: float) -> EulerStep:
        """The Euler step of length ``dt`` for the present parameters, free of autograd."""


class DoubleWellField(CoupledField):
    r"""F(x) = 4 γ x (a² − x²) + W x, a double well per node (Marino et al., 2024).

    Args:
        coupling: W = β A, shape (N, N).
        gamma: strength γ ≥ 0 of the wells, a scalar tensor.
        a: position of the wells, above 0.
    """

    def __init__(self, coupling: Tensor, gamma: Tensor, a: float) -> None:
        self.coupling = coupling
        self.parameters = (gamma,)
        self.gamma = gamma
        self.a = a

    def reaction(self, x: Tensor) -> Tensor:
        return 4 * self.gamma * x * (self.a**2 - x * x)

    def emission(self, x: Tensor) -> Tensor:
        return x

    def euler_step(self, dt: float) -> EulerStep:
        return _DoubleWellStep(self.gamma.detach(), self.a, dt)


class _DoubleWellStep(EulerStep):
    """x (linear + cubic x²) + coupled, and ∂x⁺/∂γ = 4Δt x (a² − x²)."""

    def __init__(self, gamma: Tensor, a: float, dt: float) -> None:
        self.linear = 1 + 4 * gamma * a * a * dt
        self.cubic = -4 * gamma * dt
        self.slope = 3 * self.cubic
        self.a, self.dt = a, dt

    def emit(self, x: Tensor, out: Tensor) -> None:
        out.copy_(x)

    def advance(self, x: Tensor, coupled: Tensor, out: Tensor) -> None:
        torch.mul(x, x, out=out)
        out.mul_(self.cubic).add_(self.linear).mul_(x).add_(coupled)

    def pull_back(self, x: Tensor, adjoint: Tensor, coupled: Tensor, gradients: list[Tensor]) -> Tensor:
        squared, weighted = x * x, x * adjoint
        third = torch.dot(weighted.view(-1), squared.view(-1))
        gradients[0] += 4 * self.dt * (self.a**2 * weighted.sum() - third)
        return squared.mul_(self.slope).add_(self.linear).mul_(adjoint).add_(coupled)


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

    def euler_step(self, dt: float) -> EulerStep:
        return _FiringRateStep(self.gain, dt)


class _FiringRateStep(EulerStep):
    def __init__(self, gain: Gain, dt: float) -> None:
        self.gain = gain
        self.leak = 1 - dt

    def emit(self, x: Tensor, out: Tensor) -> None:
        out.copy_(self.gain(x))

    def advance(self, x: Tensor, coupled: Tensor, out: Tensor) -> None:
        torch.add(coupled, x, alpha=self.leak, out=out)

    def pull_back(self, x: Tensor, adjoint: Tensor, coupled: Tensor, gradients: list[Tensor]) -> Tensor:
        return self.gain.derivative(x).mul_(coupled).add_(adjoint, alpha=self.leak)
