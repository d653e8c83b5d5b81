"""What limits many GPUs, on paper: counted products of a training step against the bytes of its gradients."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from benchmarks.precision import CONFIGS, RandomImages, build
from benchmarks.timing import report
from benchmarks.trainers import quiet_trainer
from lightning.pytorch.callbacks import Callback
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

FAMILIES = ["sa_node_mnist", "cvfr_mnist", "kh_cifar10", "nmode_mnist", "nmode_cifar10"]
FAMILIES += ["nonexpansive_cifar10"]
# Assumed of an H200 in bfloat16: 40 % of its peak. Bytes per second that a GPU sends: NVLink within a
# machine of 8, 400 Gbit/s InfiniBand between machines; and what a message takes, however small it is.
RATE = 0.4 * 989e12
LINKS = {8: (450e9, 20e-6), 64: (50e9, 60e-6)}
GOOD = 0.9
FEW = 10


class Counter(TorchDispatchMode):
    """Counts floating-point operations of products; unlike torch's own it asks for no hooks of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        operations = flop_registry.get(func._overloadpacket)
        if operations is not None:
            self.count += operations(*args, **(kwargs or {}), out_val=found)
        return found


class Operations(Callback):
    """Operations of the last training step, its optimizer's included."""

    def on_train_batch_start(self, *_: Any) -> None:
        self._counter = Counter()
        self._counter.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        self._counter.__exit__(None, None, None)
        self.count = self._counter.count


def scaling(count: int) -> None:
    """Operations and bytes of a step of the families' configs, and what many GPUs would make of them."""
    for package in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{package}").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended|.*LeafSpec")
    columns = ["config", "images", "GFLOP", "repeated", "step", "gradient"]
    columns += [f"{gpus} GPUs: sum, left, images" for gpus in LINKS]
    table = Table(*columns, title="Training step of a GPU, on paper")
    for name in FAMILIES:
        filters = build(CONFIGS / f"{name}.yaml").trainer.filter_epochs
        for phase in [True, False] if filters else [False]:
            table.add_row(f"{name}, filters" if phase else name, *_row(CONFIGS / f"{name}.yaml", phase))
    repeated = "repeated: GFLOP that every process does for itself, whatever its images"
    left = f"left: of a GPU's rate, nothing being sent while products run; images: for {GOOD:.0%} of it"
    report(table, repeated, left, f"assumed: {RATE / 1e12:.0f} TFLOP/s, rings of GPUs")


def _row(config: Path, filters: bool) -> list[str]:
    setup = build(config)
    images = setup.trainer.filter_batch_size if filters else setup.datamodule.batch_size
    few, many = _operations(config, filters, FEW), _operations(config, filters, 2 * FEW)
    for_each, repeated = (many - few) / FEW, 2 * few - many
    numbers = sum(p.numel() for p in setup.model.parameters() if p.requires_grad or filters)
    seconds = (for_each * images + repeated) / RATE
    cells = [str(images), _giga(for_each * images), _giga(repeated), _short(seconds)]
    cells.append(f"{4 * numbers / 1e6:.2f} MB")
    for gpus, (bandwidth, latency) in LINKS.items():
        summed = 2 * (gpus - 1) / gpus * 4 * numbers / bandwidth + latency
        own = for_each * images / RATE
        enough = GOOD / (1 - GOOD) * (summed + repeated / RATE) * RATE / for_each
        cells.append(f"{_short(summed)}, {own / (seconds + summed):.0%}, {enough:,.0f}")
    return cells


def _operations(config: Path, filters: bool, images: int) -> float:
    setup, counted = build(config), Operations()
    trainer = quiet_trainer(
        filter_epochs=int(filters),
        max_epochs=0 if filters else 1,
        accelerator="cpu",
        callbacks=[counted],
        limit_train_batches=2,
        limit_val_batches=0,
    )
    trainer.fit(setup.model, datamodule=RandomImages(setup.datamodule, images))
    return counted.count


def _giga(operations: float) -> str:
    return f"{operations / 1e9:.3g}" if operations < 1e12 else f"{operations / 1e9:,.0f}"


def _short(seconds: float) -> str:
    return f"{1e6 * seconds:.0f} µs" if seconds < 1e-3 else f"{1e3 * seconds:.1f} ms"
