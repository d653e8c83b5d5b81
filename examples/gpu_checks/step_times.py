"""Training steps at the published sizes against bare matrix products and what the chip can do."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch
from benchmarks.attractors import BATCH, EULER_STEPS, NODES, bare_products, batch, training_step
from benchmarks.nonexpansive import classifier_step
from benchmarks.timing import Run, product_rate, ratio, rounds
from gpu_checks.table import Row, attempted
from torch.nn import functional

from lightning_attractors.dynamics.plasticity import KHConv2d
from lightning_attractors.models import CVFR, NMODE, SANODE, AttractorClassifier, NonexpansiveNet

DTYPES = {"float32": torch.float32, "bf16-mixed": torch.bfloat16}
# Products that reach the full rate: they stand for the chip's peak, which no call tells.
_PEAK = {"cuda": (8192, 8192, 8192), "cpu": (1024, 1024, 1024)}
_NEURONS, _IMAGES = 2048, 200


def step_times(device: torch.device, count: int = 10, euler_steps: int = EULER_STEPS) -> Iterator[Row]:
    """A row for every family and precision; ``count`` rounds each."""
    peaks = {dtype: product_rate(dtype, _PEAK[device.type], device) for dtype in DTYPES.values()}
    for name, dtype in DTYPES.items():
        found = f"{peaks[dtype] / 1e12:.3g} TFLOP/s"
        yield Row(f"products of {_PEAK[device.type][0]}³, {name}", found, None, {"rate": peaks[dtype]})
    for family, make in _attractors(euler_steps).items():
        for name, dtype in DTYPES.items():

            def compare(make: Callable[[], AttractorClassifier] = make, dtype: torch.dtype = dtype) -> Row:
                return _against_products(make().to(device), dtype, peaks[dtype], device, count)

            row = attempted("", compare)
            yield Row(f"{family}, {name}", row.result, row.passed, row.values)
    for family, prepare in _OTHERS.items():
        yield attempted(
            family, lambda family=family, prepare=prepare: _alone(family, prepare(device), device, count)
        )


def _attractors(euler_steps: int) -> dict[str, Callable[[], AttractorClassifier]]:
    return {
        "SANODE, spectral": lambda: SANODE(coupling="spectral", steps=euler_steps),
        "SANODE, projected": lambda: SANODE(coupling="projected", steps=euler_steps),
        "CVFR, projected": lambda: CVFR(coupling="projected", steps=euler_steps),
        "CVFR, projected, noise": lambda: CVFR(coupling="projected", steps=euler_steps, sigma=0.1),
    }


def _against_products(
    model: AttractorClassifier, dtype: torch.dtype, peak: float, device: torch.device, count: int
) -> Row:
    images, labels = (tensor.to(device) for tensor in batch())
    coupling = "spectral" if type(model.coupling).__name__.startswith("Spectral") else "projected"
    step = waited(training_step(model, dtype, images, labels), device)
    bare = waited(bare_products(coupling, dtype, model.steps, device), device)
    seconds = rounds({"step": step, "bare": bare}, count)
    median, over = statistics.median(seconds["step"]), ratio(seconds["step"], seconds["bare"])
    share = 3 * 2 * BATCH * NODES**2 * model.steps / median / peak
    memory = peak_memory(step, device)
    values = {"seconds": median, "step / bare": over, "share of peak": share, "peak bytes": memory}
    found = (
        f"{1e3 * median:.2f} ms, {over:.2f} × bare products, {100 * share:.1f} % of the peak{_gib(memory)}"
    )
    return Row("", found, None, values)


def _nmode(device: torch.device) -> Run:
    model = NMODE(width=_NEURONS).to(device)
    images, labels = (tensor.to(device) for tensor in batch())
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def _nonexpansive(device: torch.device) -> Run:
    model = NonexpansiveNet(dense_depth=3, margin=0.5).to(device)
    return classifier_step(model, *(tensor.to(device) for tensor in batch()))


def _plasticity(device: torch.device) -> Run:
    layer = KHConv2d(3, 400, 4, 4.0).to(device)
    images = torch.rand(_IMAGES, 3, 32, 32, device=device)
    return lambda: layer.plasticity(images, 5, 0.1)


_OTHERS: dict[str, Callable[[torch.device], Run]] = {
    f"NMODE, {_NEURONS} neurons, float32": _nmode,
    "NonexpansiveNet as on MNIST, float32": _nonexpansive,
    f"KrotovHopfield, an update of {_IMAGES} images, float32": _plasticity,
}


def _alone(family: str, run: Run, device: torch.device, count: int) -> Row:
    step = waited(run, device)
    median = statistics.median(rounds({"step": step}, count)["step"])
    memory = peak_memory(step, device)
    values = {"seconds": median, "peak bytes": memory}
    return Row(family, f"{1e3 * median:.2f} ms{_gib(memory)}", None, values)


def waited(run: Run, device: torch.device) -> Run:
    """The same, until the device has done it."""
    if device.type == "cpu":
        return run

    def until_done() -> None:
        run()
        torch.accelerator.synchronize(device)

    return until_done


def peak_memory(run: Run, device: torch.device) -> int | None:
    """The most bytes that tensors have taken during it; None where nothing counts them."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device)


def _gib(memory: int | None) -> str:
    return "" if memory is None else f", {memory / 2**30:.2f} GiB at most"
