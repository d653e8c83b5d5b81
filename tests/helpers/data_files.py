"""Tiny data sets in the formats of the originals, for tests that must not need those, and their reading."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from lightning_attractors.data.files import FilesDataModule

CLASSES = 10


def write_idx(path: Path, array: np.ndarray) -> None:
    """An IDX file: two zero bytes, type 8 (unsigned bytes), rank, sizes (big-endian), values."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(
    root: Path | str, n_train: int, n_test: int, fashion: bool = False, seed: int = 0
) -> dict[str, np.ndarray]:
    """Write MNIST's (or Fashion-MNIST's) four files; gives their arrays by file name."""
    folder = Path(root) / ("FashionMNIST" if fashion else "MNIST") / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([seed, fashion])
    arrays = {}
    for prefix, count in (("train", n_train), ("t10k", n_test)):
        images, labels = _images((1, 28, 28), count, generator)
        arrays[f"{prefix}-images-idx3-ubyte"] = images[:, 0]
        arrays[f"{prefix}-labels-idx1-ubyte"] = labels
    for name, array in arrays.items():
        write_idx(folder / name, array)
    return arrays


def write_cifar10(
    root: Path | str, n_train: int, n_test: int, seed: int = 0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write CIFAR-10's seven files, n_train at least 5; gives images and labels by file name."""
    folder = Path(root) / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    images, labels = _images((3, 32, 32), n_train, generator)
    parts = zip(np.array_split(images, 5), np.array_split(labels, 5), strict=True)
    batches = {f"data_batch_{number}": part for number, part in enumerate(parts, start=1)}
    batches["test_batch"] = _images((3, 32, 32), n_test, generator)
    for name, (images, labels) in batches.items():
        entry = {
            "batch_label": name,
            "labels": labels.tolist(),
            "data": images.reshape(-1, 3072),
            "filenames": [f"{index}.png" for index in range(len(labels))],
        }
        (folder / name).write_bytes(pickle.dumps(entry, protocol=2))
    meta = {"num_cases_per_batch": len(labels), "label_names": list("0123456789"), "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return batches


def write_all() -> None:
    """Write few images of every data set into the folder of the run, where data modules look for them."""
    write_mnist("data", n_train=40, n_test=20)
    write_mnist("data", n_train=40, n_test=20, fashion=True)
    write_cifar10("data", n_train=40, n_test=20)


def ready(module: type[FilesDataModule], root: Path, **settings: Any) -> FilesDataModule:
    data = module(
        root=str(root), **{"download": False, "verify_checksums": False, "val_size": 10, **settings}
    )
    data.prepare_data()
    data.setup()
    return data


def same_images(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two arrays hold the same images in any order."""
    return sorted(image.tobytes() for image in first) == sorted(image.tobytes() for image in second)


def _images(
    shape: tuple[int, int, int], count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Dim random pixels with a bright band of two rows, whose place is the class; classes take turns."""
    labels = np.arange(count) % CLASSES
    images = generator.integers(0, 100, (count, *shape), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 4 + 2 * label : 6 + 2 * label] += 150
    return images, labels
