"""The flow map of nmODE against the published solver and a GELU."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from benchmarks.timing import Run, ratio, report, rounds
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from torchdiffeq import odeint

from lightning_attractors.dynamics.nmode import FlowMap

# As published for MNIST.
NODES, BATCH_NMODE, NEURONS, DECAY, TIME = 784, 256, 2048, 3.0, 1.0


def published_flow(gamma: Tensor) -> Tensor:
    """The published integration: dopri5 for every batch, differentiated through its steps."""
    span = torch.tensor([0.0, TIME])
    start = torch.zeros_like(gamma)
    states = odeint(
        lambda _, y: -DECAY * y + (y + gamma).sin().square(),
        start,
        span,
        rtol=1e-3,
        atol=1e-3,
        method="dopri5",
    )
    return states[-1]


def forward_and_backward(flow: Callable[[Tensor], Tensor], linear: torch.nn.Linear | None) -> Run:
    """An elementwise function of 256 × 2048 inputs, or of W x + b, and its gradients."""
    x = torch.randn(BATCH_NMODE, NODES)
    gamma = torch.randn(BATCH_NMODE, NEURONS, requires_grad=True)
    adjoint = torch.randn(BATCH_NMODE, NEURONS)

    def run() -> None:
        if linear is None:
            gamma.grad = None
            flow(gamma).backward(adjoint)
        else:
            linear.zero_grad()
            flow(linear(x)).backward(adjoint)

    return run


def nmode(count: int) -> None:
    """The flow of an nmODE layer against the published solver, and against a GELU of the same shape."""
    flow, linear = FlowMap(DECAY, TIME), torch.nn.Linear(NODES, NEURONS)
    kinds = {
        "flow map": flow,
        "flow map, compiled": torch.compile(flow),
        "GELU": functional.gelu,
        "GELU, compiled": torch.compile(functional.gelu),
        "dopri5": published_flow,
    }
    variants = {
        f"{kind}{product}": forward_and_backward(function, linear if product else None)
        for product in ("", ", with W x + b")
        for kind, function in kinds.items()
    }
    seconds = rounds(variants, count)
    title = (
        f"nmODE flow, forward + backward, {BATCH_NMODE}×{NEURONS}, λ={DECAY:g}, t̄={TIME:g}, "
        f"{torch.get_num_threads()} threads, median of {count}"
    )
    table = Table("", "time", "dopri5 / it", "it / GELU", title=title)
    for name, values in seconds.items():
        product = ", with W x + b" if name.endswith("b") else ""
        table.add_row(
            name,
            f"{1e3 * statistics.median(values):.2f} ms",
            f"{ratio(seconds[f'dopri5{product}'], values):.1f}",
            f"{ratio(values, seconds[f'GELU{product}']):.2f}",
        )
    report(table)
