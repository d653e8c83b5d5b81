"""Euler steps of coupled fields and their adjoints, written out by hand for few passes over memory.

An optimisation beside the equation, never its price: a field without a step here is integrated by autograd,
to the same results. A step belongs to one exact type of fields, since a subclass may have another equation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor

from lightning_attractors.dynamics.planted.fields import CoupledField, DoubleWellField, FiringRateField
from lightning_attractors.errors import require


class FusedStep(ABC):
    """One Euler step of a :class:`CoupledField` and its adjoint, for the field's values as they are now.

    ``coupled`` is Δt W s(x) in :meth:`advance`, and Δt Wᵀ l in :meth:`pull_back`, where l is the adjoint.

    Args:
        field: the prepared field.
        dt: step length Δt, above 0.
    """

    @abstractmethod
    def __init__(self, field: Any, dt: float) -> None: ...

    @staticmethod
    def parameters(field: Any) -> tuple[Tensor, ...]:
        """What the step is differentiated in, besides the state and the coupling."""
        return ()

    @abstractmethod
    def emit(self, x: Tensor, out: Tensor) -> None:
        """Write s(x) to ``out``, in its dtype."""

    @abstractmethod
    def advance(self, x: Tensor, coupled: Tensor, out: Tensor) -> None:
        """Write x + Δt r(x) + ``coupled`` to ``out``."""

    @abstractmethod
    def pull_back(self, x: Tensor, adjoint: Tensor, coupled: Tensor, gradients: list[Tensor]) -> Tensor:
        """∂L/∂x = l (1 + Δt r′(x)) + ``coupled`` s′(x); adds ∂⟨l, x⁺⟩/∂parameters to ``gradients``."""


_STEPS: dict[type[CoupledField], type[FusedStep]] = {}
_StepType = TypeVar("_StepType", bound=type[FusedStep])


def fused_step_of(kind: type[CoupledField]) -> Callable[[_StepType], _StepType]:
    """Decorate a :class:`FusedStep` with this to have it used for the fields of one type.

    Raises:
        SettingError: if there is a step for that type.
    """
    require(kind not in _STEPS, "field", kind.__name__, "must not have a fused step yet")

    def register(step: _StepType) -> _StepType:
        _STEPS[kind] = step
        return step

    return register


def has_fused_step(field: object) -> TypeGuard[CoupledField]:
    """Whether a field of exactly that type has a fused step."""
    return type(field) in _STEPS


def fused_step_type(field: CoupledField) -> type[FusedStep]:
    """The type of the fused steps of a field.

    Raises:
        SettingError: if it has none.
    """
    require(has_fused_step(field), "field", type(field).__name__, "must be of a type that has a fused step")
    return _STEPS[type(field)]


@fused_step_of(DoubleWellField)
class DoubleWellStep(FusedStep):
    """x (linear + cubic x²) + coupled, and ∂x⁺/∂γ = 4Δt x (a² − x²)."""

    def __init__(self, field: DoubleWellField, dt: float) -> None:
        gamma, a = field.gamma.detach(), field.a
        self.linear = 1 + 4 * gamma * a * a * dt
        self.cubic = -4 * gamma * dt
        self.slope = 3 * self.cubic
        self.a, self.dt = a, dt

    @staticmethod
    def parameters(field: DoubleWellField) -> tuple[Tensor, ...]:
        return (field.gamma,)

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


@fused_step_of(FiringRateField)
class FiringRateStep(FusedStep):
    """(1 − Δt) x + coupled."""

    def __init__(self, field: FiringRateField, dt: float) -> None:
        self.gain = field.gain
        self.leak = 1 - dt

    def emit(self, x: Tensor, out: Tensor) -> None:
        out.copy_(self.gain(x))

    def advance(self, x: Tensor, coupled: Tensor, out: Tensor) -> None:
        torch.add(coupled, x, alpha=self.leak, out=out)

    def pull_back(self, x: Tensor, adjoint: Tensor, coupled: Tensor, gradients: list[Tensor]) -> Tensor:
        return self.gain.derivative(x).mul_(coupled).add_(adjoint, alpha=self.leak)
