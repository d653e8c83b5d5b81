"""Rounds in which variants are timed in turn, and what the processor can do."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from lightning_attractors.linalg import product_seconds
from lightning_attractors.process import processor_name

Run = Callable[[], object]
# A product large enough for the full rate, forward and both backward.
_PRODUCT = (1024, 1024, 1024)


def rounds(variants: dict[str, Run], count: int) -> dict[str, list[float]]:
    """Seconds of each variant in each of ``count`` rounds, after one round of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(count + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def report(table: Table, *notes: str) -> None:
    """Print a table and what the processor that gave it can do."""
    console = Console(width=120)
    console.print(table)
    for note in (*notes, processor()):
        console.print(note, highlight=False)


def product_rate(dtype: torch.dtype, shape: tuple[int, int, int], device: torch.device) -> float:
    """Operations per second of products of that shape, forward and both backward."""
    return 3 * 2 * math.prod(shape) / product_seconds(dtype, shape, device)


def processor() -> str:
    """Name, threads, and the rates of its matrix products in float32 and bfloat16."""
    cpu = torch.device("cpu")
    rates = [
        f"{product_rate(dtype, _PRODUCT, cpu) / 1e9:.0f} GFLOP/s in {name}"
        for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16"))
    ]
    threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return f"processor: {processor_name()}, {threads}; products {', '.join(rates)}; torch {torch.__version__}"
