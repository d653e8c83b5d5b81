"""Local learning against its dense form and against the bare product of the currents."""

from __future__ import annotations

import multiprocessing
import resource
import statistics

import torch
from benchmarks.timing import Run, ratio, report, rounds
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from lightning_attractors.dynamics.plasticity import KHConv2d, normalized_update

# Krotov–Hopfield with the best published filters. Few images are timed: time goes with their number.
GRID, WIDTH, P, M, DELTA = 20, 4, 4.0, 5, 0.1
BATCH_KH, TIMED_IMAGES, TRAINING_IMAGES = 1000, 100, 50_000


def dense_update(patches: Tensor, filters: Tensor) -> Tensor:
    """The published update of the filters (F, D): all ranks sorted, and a gain for every unit and patch."""
    patches = patches / patches.norm(p=P, dim=1, keepdim=True)
    currents = patches @ (filters.sign() * filters.abs() ** (P - 1)).T
    order = currents.sort(dim=1, descending=True).indices
    gains = torch.zeros_like(currents)
    gains.scatter_(1, order[:, :1], 1.0)
    gains.scatter_(1, order[:, M - 1 : M], -DELTA)
    update = gains.T @ patches - (gains * currents).sum(dim=0)[:, None] * filters
    return update / update.abs().max()


def unfolded(images: Tensor) -> Tensor:
    """All patches, shape (B, positions, D)."""
    return functional.unfold(images, WIDTH).transpose(1, 2)


def bare_currents(images: Tensor, filters: Tensor) -> Run:
    """The float32 product that gives the currents of all patches, in pieces that fit the cache."""
    pieces = unfolded(images).flatten(0, 1).split(2048)

    def run() -> None:
        for piece in pieces:
            filters @ piece.T

    return run


def by_position(layer: KHConv2d, images: Tensor) -> None:
    """One update per position of the patches, each of the patches of all images there."""
    for update in layer.plasticity_by_position(images, M, DELTA):
        normalized_update(update)


def dense_by_position(images: Tensor, filters: Tensor) -> None:
    """The same, densely."""
    for patches in unfolded(images).unbind(dim=1):
        dense_update(patches, filters)


def peak_memory(count: int) -> float:
    """GiB that the process needed at most while it computed one update of that many images (on Linux)."""
    layer, images = KHConv2d(3, GRID**2, WIDTH, P), torch.rand(count, 3, 32, 32)
    layer.plasticity(images, M, DELTA)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def kh(count: int) -> None:
    """A pass of local learning against the dense version, and against the product of the currents."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        gibibytes = pool.apply(peak_memory, (BATCH_KH,))
    torch.manual_seed(0)
    layer, images = KHConv2d(3, GRID**2, WIDTH, P), torch.rand(TIMED_IMAGES, 3, 32, 32)
    # By position the batch must be whole, so that a strip of each image is timed.
    strips = torch.rand(BATCH_KH, 3, 32, WIDTH + 2)
    filters = layer.weight.detach().flatten(1)
    variants: dict[str, Run] = {
        "batch": lambda: layer.plasticity(images, M, DELTA),
        "batch, dense": lambda: dense_update(unfolded(images).flatten(0, 1), filters),
        "position": lambda: by_position(layer, strips),
        "position, dense": lambda: dense_by_position(strips, filters),
        "bare product": bare_currents(images, filters),
    }
    positions = (33 - WIDTH) ** 2
    timed = dict.fromkeys(variants, TIMED_IMAGES * positions)
    timed["position"] = timed["position, dense"] = BATCH_KH * 3 * (33 - WIDTH)
    epochs = {
        name: [value * TRAINING_IMAGES * positions / timed[name] for value in values]
        for name, values in rounds(variants, count).items()
    }
    title = (
        f"Krotov–Hopfield filter epoch, K={GRID}, w={WIDTH}, p={P:g}, m={M}, batch {BATCH_KH}, "
        f"{TRAINING_IMAGES} images, extrapolated from {TIMED_IMAGES}, median of {count}"
    )
    table = Table("one update per", "epoch", "/ bare product", "dense", "dense / it", title=title)
    for name in ("batch", "position"):
        values, dense = epochs[name], epochs[f"{name}, dense"]
        table.add_row(
            name,
            f"{statistics.median(values):.0f} s",
            f"{ratio(values, epochs['bare product']):.2f}",
            f"{statistics.median(dense):.0f} s",
            f"{ratio(dense, values):.1f}",
        )
    report(table, f"peak memory at batch {BATCH_KH}: {gibibytes:.2f} GiB")
