r"""Euler (–Maruyama) integration of a coupled field as one operation with its own backward pass.

The step is x⁺ = clip(x + Δt r(x) + Δt W s(x) + σ √Δt d(x) ξ), clip and noise being optional. Its adjoint,
with l = ∂L/∂x⁺ zeroed where the clip was active, is

    ∂L/∂x = l (1 + Δt r′(x)) + Δt (Wᵀ l) s′(x) + σ √Δt ⟨l, ξ⟩ ∇d(x)
    ∂L/∂W = Δt Σ_n l_n s(x_n)ᵀ                        (one product over all steps)

It gives what autograd gives through :func:`~lightning_attractors.dynamics.integrate`, with fewer
passes over memory: `examples/benchmark.py` compares it with the bare matrix products.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_attractors.dynamics.integrate import loop
from lightning_attractors.dynamics.planted.fields import CoupledField
from lightning_attractors.dynamics.planted.fused_steps import FusedStep, fused_step_type
from lightning_attractors.dynamics.planted.noise import DampedNoise
from lightning_attractors.dynamics.planted.workspace import Lease, Workspace
from lightning_attractors.dynamics.recomputation import DrawingAgain, segments
from lightning_attractors.linalg import product_dtype

_WORKSPACE = Workspace()


def integrate_fused(
    field: CoupledField,
    x: Tensor,
    dt: float,
    steps: int,
    bound: float | None = None,
    noise: DampedNoise | None = None,
    recompute: bool = False,
) -> Tensor:
    """State after ``steps`` Euler steps, differentiable once in x, the coupling and the field's parameters.

    The matrix products run in the dtype that autocast asks for, the state stays in the dtype of x.

    Args:
        field: the prepared field, of a type that has a :class:`FusedStep`.
        x: initial states, shape (B, N).
        dt: step length, above 0.
        steps: number of steps, at least 1.
        bound: states are clamped to [−bound, bound] after every step, if given.
        noise: one realisation of the noise, if any.
        recompute: keep every √steps-th state alone for the gradient, and take the steps between once more.

    Returns:
        Final states, shape (B, N).

    Raises:
        SettingError: if fields of that type have no fused step.
    """
    step_type, dtype = fused_step_type(field), product_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        plan = _Plan(step_type(field, dt), dt, segments(steps, recompute), bound, noise, dtype)
        if torch.is_grad_enabled():
            parameters = step_type.parameters(field)
            result: Tensor = _FusedEuler.apply(plan, x, field.coupling, *parameters)
            return result
        coupling = (dt * field.coupling).to(dtype)

        def advanced(start: Tensor, emitted: Tensor, draw: Tensor) -> Tensor:
            end = torch.empty_like(start)
            plan.advance(start, emitted, draw, coupling, end)
            return end

        if torch.compiler.is_exporting():
            return loop(
                lambda s: advanced(s, torch.empty_like(s, dtype=dtype), torch.empty_like(s)), x, steps
            )
        emitted, draw = torch.empty_like(x, dtype=dtype), torch.empty_like(x)
        for _ in range(steps):
            x = advanced(x, emitted, draw)
        return x


@dataclass(frozen=True)
class _Plan:
    """What an integration does, besides the tensors that it is differentiated in."""

    step: FusedStep
    dt: float
    segments: list[int]
    bound: float | None
    noise: DampedNoise | None
    dtype: torch.dtype

    def advance(
        self, x: Tensor, emitted: Tensor, draw: Tensor, coupling: Tensor, out: Tensor
    ) -> Tensor | None:
        """One step from x to ``out``, leaving s(x) and ξ; returns the distances that damp the noise."""
        self.step.emit(x, emitted)
        # Converting first is faster than adding tensors of two dtypes.
        self.step.advance(x, (emitted @ coupling.T).to(x.dtype), out)
        distances = None
        if self.noise is not None:
            distances = self.noise.distances(x)
            damping = self.noise.damping(distances).to(x.dtype)
            out.addcmul_(self.noise.draw(draw), damping, value=self.noise.amplitude(self.dt))
        if self.bound is not None:
            out.clamp_(-self.bound, self.bound)
        return distances

    def pull_back_clip(self, incoming: Tensor, result: Tensor, out: Tensor) -> None:
        """Write l to ``out``: zero where the clip was active, the derivative of clamp."""
        if self.bound is None:
            out.copy_(incoming)
        else:
            torch.ops.aten.hardtanh_backward(incoming, result, -self.bound, self.bound, grad_input=out)


class _History:
    """What the adjoint needs of the steps: of one segment all, of the others their starts.

    Of the segment that is present there are the states, s(x) in the dtype of the products, the noise ξ and
    the distances that damp it.
    """

    def __init__(self, plan: _Plan, x: Tensor) -> None:
        steps = max(plan.segments)
        self.plan = plan
        self.leases: list[Lease] = []
        self.states = self._lend((steps + 1, *x.shape), x.dtype, x.device)
        self.emitted = self._lend((steps, *x.shape), plan.dtype, x.device)
        self.draws = self._lend((steps if plan.noise else 0, *x.shape), x.dtype, x.device)
        self.distances: list[Any] = []
        self.starts: list[Tensor] = []
        self.randomness: list[Tensor] = []
        self.present = -1

    def _lend(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        self.leases.append(_WORKSPACE.lease(shape, dtype, device))
        return self.leases[-1].buffer

    def fly(self, x: Tensor, scaled: Tensor) -> Tensor:
        """All segments from x, of which the last one is present in the end; the final states."""
        several = len(self.plan.segments) > 1  # a single one is never taken again
        for number in range(len(self.plan.segments)):
            if several:
                self.starts.append(x.clone())
            if several and self.plan.noise is not None:
                self.randomness.append(self.plan.noise.generator.get_state())
            x = self._take(number, x, scaled)
        return x.clone()

    def recall(self, number: int, scaled: Tensor) -> None:
        """Take the steps of a segment once more, with the same noise, unless it is present."""
        if number == self.present:
            return
        noise = self.plan.noise
        same = nullcontext() if noise is None else DrawingAgain(noise.generator, self.randomness[number])
        with same:
            self._take(number, self.starts[number], scaled)

    def _take(self, number: int, start: Tensor, scaled: Tensor) -> Tensor:
        self.states[0].copy_(start)
        self.distances, self.present = [], number
        steps = self.plan.segments[number]
        for n in range(steps):
            draw = self.draws[n] if self.plan.noise else self.draws
            arguments = (self.states[n], self.emitted[n], draw, scaled, self.states[n + 1])
            self.distances.append(self.plan.advance(*arguments))
        return self.states[steps]


class _FusedEuler(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, x: Tensor, coupling: Tensor, *parameters: Tensor) -> Tensor:
        scaled = (plan.dt * coupling).to(plan.dtype)
        ctx.save_for_backward(scaled, *parameters)
        ctx.plan, ctx.history = plan, _History(plan, x)
        return ctx.history.fly(x, scaled)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        history: _History = ctx.history
        scaled, *parameters = ctx.saved_tensors
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        lease = _WORKSPACE.lease(tuple(history.emitted.shape), plan.dtype, grad.device)
        grad_coupling = None
        for number in reversed(range(len(plan.segments))):
            history.recall(number, scaled)
            adjoints = lease.buffer[: plan.segments[number]]
            grad = _pull_back(plan, history, grad, scaled, adjoints, gradients)
            if ctx.needs_input_grad[2]:
                emitted = history.emitted[: len(adjoints)]
                outer = (adjoints.flatten(0, 1).T @ emitted.flatten(0, 1)).to(grad.dtype)
                grad_coupling = outer if grad_coupling is None else grad_coupling.add_(outer)
        return None, grad, None if grad_coupling is None else grad_coupling.mul_(plan.dt), *gradients


def _pull_back(
    plan: _Plan, history: _History, grad: Tensor, scaled: Tensor, adjoints: Tensor, gradients: list[Tensor]
) -> Tensor:
    """∂L/∂x at the start of the segment that is present, from that at its end; leaves the l of its steps."""
    states, adjoint = history.states, torch.empty_like(grad)
    for n in reversed(range(len(adjoints))):
        plan.pull_back_clip(grad, states[n + 1], adjoint)
        adjoints[n].copy_(adjoint)
        coupled = (adjoints[n] @ scaled).to(grad.dtype)
        grad = plan.step.pull_back(states[n], adjoint, coupled, gradients)
        if plan.noise is not None:
            distances = history.distances[n]
            plan.noise.pull_back_(states[n], distances, adjoint, history.draws[n], plan.dt, grad)
    return grad
