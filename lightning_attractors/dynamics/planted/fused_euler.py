r"""Euler (–Maruyama) integration of a coupled field as one operation with its own backward pass.

The step is x⁺ = clip(x + Δt r(x) + Δt W s(x) + σ √Δt d(x) ξ), clip and noise being optional. Its adjoint,
with l = ∂L/∂x⁺ zeroed where the clip was active, is

    ∂L/∂x = l (1 + Δt r′(x)) + Δt (Wᵀ l) s′(x) + σ √Δt ⟨l, ξ⟩ ∇d(x)
    ∂L/∂W = Δt Σ_n l_n s(x_n)ᵀ                        (one product over all steps)

It gives what autograd gives through :func:`~lightning_attractors.dynamics.integrate`, with fewer
passes over memory: `examples/benchmark.py` compares it with the bare matrix products.
"""

from __future__ import annotations

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
from lightning_attractors.linalg import product_dtype

_WORKSPACE = Workspace()


def integrate_fused(
    field: CoupledField,
    x: Tensor,
    dt: float,
    steps: int,
    bound: float | None = None,
    noise: DampedNoise | None = None,
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

    Returns:
        Final states, shape (B, N).

    Raises:
        SettingError: if fields of that type have no fused step.
    """
    step_type, dtype = fused_step_type(field), product_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        plan = _Plan(step_type(field, dt), dt, steps, bound, noise, dtype)
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
    steps: int
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


class _FusedEuler(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, x: Tensor, coupling: Tensor, *parameters: Tensor) -> Tensor:
        steps, noise = plan.steps, plan.noise
        states = _WORKSPACE.lease((steps + 1, *x.shape), x.dtype, x.device)
        # The products take s(x) in their own dtype; kept for the gradient of the coupling.
        emitted = _WORKSPACE.lease((steps, *x.shape), plan.dtype, x.device)
        draws = _WORKSPACE.lease((steps if noise else 0, *x.shape), x.dtype, x.device)
        scaled = (plan.dt * coupling).to(plan.dtype)
        states.buffer[0].copy_(x)
        ctx.distances = []
        for n in range(steps):
            draw = draws.buffer[n] if noise else draws.buffer
            arguments = (states.buffer[n], emitted.buffer[n], draw, scaled, states.buffer[n + 1])
            ctx.distances.append(plan.advance(*arguments))
        ctx.save_for_backward(scaled, *parameters)
        ctx.plan, ctx.leases = plan, (states, emitted, draws)
        return states.buffer[steps].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        scaled, *parameters = ctx.saved_tensors
        leases: tuple[Lease, Lease, Lease] = ctx.leases
        states, emitted, draws = (lease.buffer for lease in leases)
        adjoint_lease = _WORKSPACE.lease(tuple(emitted.shape), plan.dtype, grad.device)
        adjoints = adjoint_lease.buffer
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        adjoint = torch.empty_like(grad)
        for n in reversed(range(plan.steps)):
            plan.pull_back_clip(grad, states[n + 1], adjoint)
            adjoints[n].copy_(adjoint)
            coupled = (adjoints[n] @ scaled).to(grad.dtype)
            grad = plan.step.pull_back(states[n], adjoint, coupled, gradients)
            if plan.noise is not None:
                plan.noise.pull_back_(states[n], ctx.distances[n], adjoint, draws[n], plan.dt, grad)
        grad_coupling = None
        if ctx.needs_input_grad[2]:
            outer = adjoints.flatten(0, 1).T @ emitted.flatten(0, 1)
            grad_coupling = outer.to(grad.dtype).mul_(plan.dt)
        return None, grad, grad_coupling, *gradients
