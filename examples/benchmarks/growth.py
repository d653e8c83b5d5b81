"""How time and memory of a training step grow with nodes, images, steps and processes, beside theory."""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection

import torch
from benchmarks.timing import product_rate, report, rounds
from rich.table import Table
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from lightning_attractors.models import SANODE

CLASSES = 10
# Matrices (N, N) that are there at once: M, its gradient and two moments; A, βA, ΔtβA and the gradient of βA.
MATRICES = 8
# Numbers of every state: itself, what the products take of it, and its adjoint.
KEPT = 3
# How often such a number is read or written in a step and its adjoint, and one of a matrix: counted in the
# fused step, in what forms βA and its gradient, and in Adam.
STATE_PASSES, MATRIX_PASSES = 40, 30
COPIED = 2**24


@dataclass(frozen=True)
class Point:
    """A training step of SA-nODE with projected coupling, in float32; images are of each process."""

    nodes: int = 784
    images: int = 250
    steps: int = 20
    processes: int = 1

    @property
    def operations(self) -> float:
        """Of the products of one process: forward, and backward to the states and to the coupling."""
        return 3 * 2 * self.nodes**2 * self.images * self.steps

    @property
    def states(self) -> int:
        """Numbers in the states of all steps."""
        return self.nodes * self.images * self.steps

    def seconds(self, machine: Machine) -> float:
        """Products at the machine's rate, and everything else at its bandwidth; processes cost nothing."""
        moved = 4 * (STATE_PASSES * self.states + MATRIX_PASSES * self.nodes**2)
        return self.operations / machine.rate + moved / machine.bandwidth

    @property
    def megabytes(self) -> float:
        """What one process holds at once."""
        return 4 * (MATRICES * self.nodes**2 + KEPT * self.states) / 2**20


@dataclass(frozen=True)
class Machine:
    """Operations and bytes per second, and the MiB that libraries take when they are first used."""

    rate: float
    bandwidth: float
    fixed: float

    @classmethod
    def measured(cls) -> Machine:
        """Of one thread, in float32."""
        shape = (250, 784, 784)
        rate = product_rate(torch.float32, shape, torch.device("cpu"))
        numbers, copy = torch.rand(COPIED), torch.empty(COPIED)
        seconds = statistics.median(rounds({"copy": lambda: copy.copy_(numbers)}, 5)["copy"])
        return cls(rate, 2 * 4 * COPIED / seconds, measured(Point(10, 10, 1), 1).megabytes)


@dataclass(frozen=True)
class Cost:
    """Median seconds of a step, and the most memory above that of the imports, in MiB."""

    seconds: float
    megabytes: float


AXES = {
    "nodes": [49, 196, 784, 1024, 2048, 4096],
    "images": [25, 50, 100, 250, 500, 1000],
    "steps": [5, 10, 20, 40, 80, 160],
    "processes": [1, 2],
}


def growth(count: int) -> None:
    """Cost of every point, one axis after the other, and its exponent from the point before."""
    torch.set_num_threads(1)  # of each process, so that processes have no less of the machine
    costs = {axis: _along(axis, count) for axis in AXES}
    machine = Machine.measured()  # afterwards: processes would find the memory that it has taken
    columns = ("", "", "ms", "exponent", "theory", "MiB", "exponent", "theory")
    table = Table(*columns, title=f"Growth, median of {count}")
    for axis, found in costs.items():
        for before, (point, cost) in zip([None, *found], found, strict=False):
            table.add_row(axis, str(asdict(point)[axis]), *_cells(axis, point, cost, before, machine))
        table.add_section()
    fixed = ", ".join(f"{name} {value}" for name, value in asdict(Point()).items())
    theory = f"{machine.rate / 1e9:.0f} GFLOP/s, {machine.bandwidth / 2**30:.1f} GiB/s"
    note = f"what is not varied: {fixed}; one thread each; theory by {theory}, {machine.fixed:.0f} MiB"
    report(table, note)


def _along(axis: str, count: int) -> list[tuple[Point, Cost]]:
    """Points along an axis with what they cost; of processes no more than there are processors."""
    values = [value for value in AXES[axis] if axis != "processes" or value <= (os.cpu_count() or 1)]
    points = [replace(Point(), **{axis: value}) for value in values]
    return [(point, measured(point, count)) for point in points]


def _cells(
    axis: str, point: Point, cost: Cost, before: tuple[Point, Cost] | None, machine: Machine
) -> list[str]:
    own = [f"{1e3 * cost.seconds:.1f}", "", "", f"{cost.megabytes:.0f}", "", ""]
    if before is None:
        return own
    last, then = before
    grown = math.log(asdict(point)[axis] / asdict(last)[axis])
    pairs = {
        1: (cost.seconds, then.seconds),
        2: (point.seconds(machine), last.seconds(machine)),
        4: (cost.megabytes, then.megabytes),
        5: (machine.fixed + point.megabytes, machine.fixed + last.megabytes),
    }
    for place, (now, earlier) in pairs.items():
        own[place] = f"{math.log(now / earlier) / grown:.2f}"
    return own


def measured(point: Point, count: int) -> Cost:
    """The cost of a point, in processes of its own, whose peak memory is theirs alone."""
    here = multiprocessing.get_context("fork")  # what takes seconds to import is there already
    receiver, sender = here.Pipe(duplex=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        here.Process(target=_process, args=(point, rank, port, count, sender))
        for rank in range(point.processes)
    ]
    for process in processes:
        process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        sys.exit(f"{point}: a process has ended without a figure")
    finally:
        for process in processes:
            process.join()


def _process(point: Point, rank: int, port: int, count: int, sender: Connection) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.manual_seed(0)
    step = _step(point, rank, port)
    step()
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if rank == 0:
        sender.send(Cost(statistics.median(seconds), most / unit))
    if point.processes > 1:
        destroy_process_group()


class _Loss(nn.Module):
    """A training step's loss as a module, whose gradients processes average."""

    def __init__(self, model: SANODE) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean squared distance of final states from the attractors."""
        states = self.model.final_state(images)
        return (states - self.model.attractors[labels]).square().sum(dim=1).mean()


def _step(point: Point, rank: int, port: int) -> Callable[[], None]:
    loss: nn.Module = _Loss(SANODE(CLASSES, (1, 1, point.nodes), "projected", steps=point.steps))
    if point.processes > 1:
        address = f"tcp://127.0.0.1:{port}"
        init_process_group("gloo", init_method=address, rank=rank, world_size=point.processes)
        loss = DistributedDataParallel(loss)
    optimizer = torch.optim.Adam(loss.parameters())
    images, labels = torch.rand(point.images, 1, 1, point.nodes), torch.arange(point.images) % CLASSES

    def step() -> None:
        optimizer.zero_grad()
        loss(images, labels).backward()
        optimizer.step()

    return step
