"""An epoch of images in memory, served as whole batches, against torchvision's data set image by image."""

from __future__ import annotations

import statistics
import tempfile
import warnings
from pathlib import Path

import torch
from benchmarks.timing import Run, ratio, report, rounds
from rich.table import Table
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from lightning_attractors.data import MNISTDataModule

IMAGES, BATCH, SHIFT = 12_000, 250, 1


def loader(count: int) -> None:
    """Epochs of random digits in MNIST's files, as they are and shifted by up to a pixel."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*checksum.*|.*pin_memory.*")
        _write_digits(Path(folder))
        title = f"Epoch of {IMAGES} images, batches of {BATCH}, median of {count}"
        table = Table("images", "ours", "torchvision", "in 2 workers", "ratio", "in 2 workers", title=title)
        for label, shift in (("as they are", 0), (f"shifted by up to {SHIFT}", SHIFT)):
            seconds = rounds(_epochs(folder, shift), count)
            ours, usual, workers = seconds.values()
            times = [f"{1e3 * statistics.median(values):.0f} ms" for values in (ours, usual, workers)]
            table.add_row(label, *times, f"{ratio(usual, ours):.0f}", f"{ratio(workers, ours):.0f}")
    report(table, "ratio: torchvision / ours; workers are kept from epoch to epoch")


def _epochs(folder: str, shift: int) -> dict[str, Run]:
    data = MNISTDataModule(folder, batch_size=BATCH, max_shift=shift, verify_checksums=False)
    data.setup("fit")
    ours = data.train_dataloader()
    moved = [transforms.RandomCrop(28, padding=shift)] if shift else []
    images = datasets.MNIST(folder, transform=transforms.Compose([*moved, transforms.ToTensor()]))
    count = len(data.datasets["train"])
    usual = Subset(images, range(count))  # as many as ours keeps for training
    plain = DataLoader(usual, BATCH, shuffle=True)
    workers = DataLoader(usual, BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    return {name: _epoch(one) for name, one in (("ours", ours), ("plain", plain), ("workers", workers))}


def _epoch(batches: DataLoader) -> Run:
    return lambda: sum(len(labels) for _, labels in batches)


def _write_digits(folder: Path) -> None:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, number in (("train", IMAGES), ("t10k", BATCH)):
        images = torch.randint(256, (number, 28, 28), dtype=torch.uint8)
        labels = torch.arange(number, dtype=torch.uint8) % 10
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
            content = bytes([0, 0, 8, values.dim()]) + sizes + values.numpy().tobytes()
            (raw / f"{prefix}-{name}-ubyte").write_bytes(content)
