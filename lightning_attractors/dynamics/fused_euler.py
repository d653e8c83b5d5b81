r"""Euler integration of a double-well network as one operation with its own backward pass.

The step is x⁺ = clip(x (1 + 4γa²Δt − 4γΔt x²) + Δt W x). Its adjoint, with l = ∂L/∂x⁺ zeroed where the
clip was active, is

    ∂L/∂x = l (1 + 4γa²Δt − 12γΔt x²) + Δt Wᵀ l
    ∂L/∂W = Δt Σ_n l_n x_nᵀ                           (one product over all steps)
    ∂L/∂γ = Δt Σ_n ⟨l_n, 4 x_n (a² − x_n²)⟩

It gives what autograd gives through :func:`~lightning_attractors.dynamics.integrate.integrate`, with fewer
passes over memory: `examples/benchmark.py sa_node` compares it with the bare matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_attractors.dynamics.fields import DoubleWellField
from lightning_attractors.dynamics.workspace import Workspace

_WORKSPACE = Workspace()


def integrate_double_well(field: DoubleWellField, x: Tensor, dt: float, steps: int, bound: float) -> Tensor:
    """State after ``steps`` clipped Euler steps, differentiable once in x, the coupling and γ.

    The matrix products run in the dtype that autocast asks for, the state stays in the dtype of x.

    Args:
        field: the prepared field.
        x: initial states, shape (B, N).
        dt: step length, above 0.
        steps: number of steps, at least 1.
        bound: states are clamped to [−bound, bound] after every step.

    Returns:
        Final states, shape (B, N).
    """
    device = x.device.type
    mixed = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if mixed else x.dtype
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled():
            arguments = (x, field.coupling, field.gamma, field.a, dt, steps, bound, dtype)
            result: Tensor = _DoubleWellEuler.apply(*arguments)
            return result
        coupling = (dt * field.coupling).to(dtype)
        linear, cubic = _step_coefficients(field.gamma, field.a, dt)
        for _ in range(steps):
            x = _advance(x, x.to(dtype), coupling, linear, cubic, bound, torch.empty_like(x))
        return x


def _step_coefficients(gamma: Tensor, a: float, dt: float) -> tuple[Tensor, Tensor]:
    return 1 + 4 * gamma * a * a * dt, -4 * gamma * dt


def _advance(
    x: Tensor, x_low: Tensor, coupling: Tensor, linear: Tensor, cubic: Tensor, bound: float, out: Tensor
) -> Tensor:
    torch.mul(x, x, out=out)
    # Converting first is faster than adding tensors of two dtypes.
    out.mul_(cubic).add_(linear).mul_(x).add_((x_low @ coupling.T).to(x.dtype))
    return out.clamp_(-bound, bound)


class _DoubleWellEuler(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        coupling: Tensor,
        gamma: Tensor,
        a: float,
        dt: float,
        steps: int,
        bound: float,
        dtype: torch.dtype,
    ) -> Tensor:
        shape = (steps + 1, *x.shape)
        history = _WORKSPACE.lease(shape, x.dtype, x.device)
        # The products take the states in their own dtype; kept for the gradient of the coupling.
        low_history = history if dtype == x.dtype else _WORKSPACE.lease(shape, dtype, x.device)
        states, low = history.buffer, low_history.buffer
        scaled = (dt * coupling).to(dtype)
        linear, cubic = _step_coefficients(gamma, a, dt)
        states[0].copy_(x)
        for n in range(steps):
            if low is not states:
                low[n].copy_(states[n])
            _advance(states[n], low[n], scaled, linear, cubic, bound, states[n + 1])
        ctx.save_for_backward(scaled, gamma)
        ctx.leases = (history, low_history)
        ctx.settings = (a, dt, steps, bound)
        return states[steps].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled, gamma = ctx.saved_tensors
        states, low = (lease.buffer for lease in ctx.leases)
        a, dt, steps, bound = ctx.settings
        linear, cubic = _step_coefficients(gamma, a, dt)
        adjoint_lease = _WORKSPACE.lease(tuple(states.shape), scaled.dtype, grad.device)
        adjoints = adjoint_lease.buffer
        first = torch.zeros_like(gamma)  # Σ ⟨l, x⟩
        third = torch.zeros_like(gamma)  # Σ ⟨l, x³⟩
        slope = 3 * cubic
        adjoint = torch.empty_like(grad)
        incoming = grad
        for n in reversed(range(steps)):
            x = states[n]
            # Where the clip was active the step is constant: this is the derivative of clamp.
            torch.ops.aten.hardtanh_backward(incoming, states[n + 1], -bound, bound, grad_input=adjoint)
            adjoints[n].copy_(adjoint)
            squared = x * x
            weighted = x * adjoint
            first += weighted.sum()
            third += torch.dot(weighted.view(-1), squared.view(-1))
            product = (adjoints[n] @ scaled).to(grad.dtype)
            incoming = squared.mul_(slope).add_(linear).mul_(adjoint).add_(product)
        grad_gamma = 4 * dt * (a * a * first - third)
        grad_coupling = None
        if ctx.needs_input_grad[1]:
            outer = adjoints[:steps].flatten(0, 1).T @ low[:steps].flatten(0, 1)
            grad_coupling = outer.to(grad.dtype).mul_(dt)
        return incoming, grad_coupling, grad_gamma, None, None, None, None, None
