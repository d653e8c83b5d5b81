"""Integrations as one CUDA graph, elsewhere as one compiled region, and nmODE as one kernel."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch
from benchmarks.attractors import BATCH, EULER_STEPS, NODES
from benchmarks.timing import ratio, rounds
from gpu_checks.step_times import waited
from gpu_checks.table import Row, attempted
from torch import Tensor
from torch.nn import functional

from lightning_attractors.dynamics.nmode import FlowMap
from lightning_attractors.dynamics.planted import (
    CoupledField,
    DoubleWellField,
    FiringRateField,
    HillGain,
    integrate_fused,
)

Gradients = Callable[[], tuple[Tensor, ...]]
_TOLERANCE = 1e-5
_NEURONS = (256, 2048)


def integrations(device: torch.device, count: int = 10, steps: int = EULER_STEPS) -> Iterator[Row]:
    """A row for each: forward and backward, against the same operation by operation."""
    for name, field in _FIELDS.items():
        yield attempted(name, lambda name=name, field=field: _whole(name, field, device, count, steps))
    yield attempted("nmODE", lambda: one_kernel(device, count))


def _double_wells(coupling: Tensor) -> CoupledField:
    return DoubleWellField(coupling, coupling.new_full((), 0.4), 0.5)


def _firing_rates(coupling: Tensor) -> CoupledField:
    return FiringRateField(coupling, HillGain())


_FIELDS: dict[str, Callable[[Tensor], CoupledField]] = {"SANODE": _double_wells, "CVFR": _firing_rates}


def _whole(
    name: str, field: Callable[[Tensor], CoupledField], device: torch.device, count: int, steps: int
) -> Row:
    torch.manual_seed(0)
    start = torch.rand(BATCH, NODES, device=device, requires_grad=True)
    coupling = (torch.randn(NODES, NODES, device=device) / NODES).requires_grad_()

    def flown(x: Tensor, matrix: Tensor) -> Tensor:
        return integrate_fused(field(matrix), x, 0.1, steps, 5.0)

    def gradients(fly: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        end = fly(start, coupling)
        return end.detach(), *torch.autograd.grad(end.square().sum(), (start, coupling))

    eager: Gradients = lambda: gradients(flown)  # noqa: E731
    if device.type == "cuda":
        kind, whole = "one CUDA graph", as_graph(eager)
    else:
        region = torch.compile(flown, fullgraph=True, backend="aot_eager")
        kind, whole = "one compiled region", lambda: gradients(region)
    off = _deviation(whole(), eager())
    runs = {"whole": waited(whole, device), "eager": waited(eager, device)}
    seconds = rounds(runs, count)
    faster, median = ratio(seconds["eager"], seconds["whole"]), statistics.median(seconds["whole"])
    found = f"{kind}, {1e3 * median:.2f} ms, {faster:.2f} × as fast, off by {off:.1e}"
    return Row(name, found, off <= _TOLERANCE, {"seconds": median, "faster": faster, "deviation": off})


def as_graph(run: Gradients) -> Gradients:
    """The same as one CUDA graph, which is replayed; what it gives is overwritten by the next replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # what is made once is made
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        given = run()

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return given

    return replay


def one_kernel(device: torch.device, count: int, backend: str = "inductor") -> Row:
    """The flow map compiled: how many kernels it becomes, how exact they are, how fast beside a GELU."""
    from torch._inductor import metrics  # which nothing else tells: how many kernels were made

    torch.manual_seed(0)
    gamma = 3 * torch.randn(_NEURONS, device=device, requires_grad=True)
    flow = FlowMap()
    fused, gelu = (torch.compile(one, fullgraph=True, backend=backend) for one in (flow, functional.gelu))

    def gradients(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        y = function(gamma)
        return y.detach(), *torch.autograd.grad(y.sum(), gamma)

    metrics.reset()
    off = _deviation(gradients(fused), gradients(flow))
    kernels = metrics.generated_kernel_count
    runs = {
        "flow": lambda: gradients(fused),
        "eager": lambda: gradients(flow),
        "GELU": lambda: gradients(gelu),
    }
    seconds = rounds({name: waited(run, device) for name, run in runs.items()}, count)
    median, slower = statistics.median(seconds["flow"]), ratio(seconds["flow"], seconds["GELU"])
    found = (
        f"{kernels} kernels, forward and backward, {1e3 * median:.3f} ms, {slower:.2f} × a compiled GELU, "
        f"{ratio(seconds['eager'], seconds['flow']):.2f} × as fast as without, off by {off:.1e}"
    )
    values = {"kernels": kernels, "seconds": median, "flow / GELU": slower, "deviation": off}
    return Row("nmODE", found, off <= _TOLERANCE and 1 <= kernels <= 2, values)


def _deviation(some: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> float:
    """The largest difference, relative to the largest entry of a tensor."""
    pairs = zip(some, others, strict=True)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)
