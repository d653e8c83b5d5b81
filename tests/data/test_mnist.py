"""MNIST and Fashion-MNIST from files in the original format, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import ready, same_images, write_idx, write_mnist
from refusals import refusal

from lightning_attractors.data import FashionMNISTDataModule, MNISTDataModule

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize("fashion", [False, True])
def test_mnist_pixels_come_back_exactly(tmp_path: Path, fashion: bool) -> None:
    written = write_mnist(tmp_path, 60, 20, fashion=fashion)
    data = ready(FashionMNISTDataModule if fashion else MNISTDataModule, tmp_path, val_size=0)
    images, labels = next(iter(data.test_dataloader()))
    assert images.shape == (20, 1, 28, 28)
    assert torch.equal(images[:, 0], torch.from_numpy(written["t10k-images-idx3-ubyte"]) / 255)
    assert labels.tolist() == written["t10k-labels-idx1-ubyte"].tolist()
    train = data.datasets["train"]
    assert same_images(train.images[:, 0].numpy(), written[TRAIN_IMAGES])


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    write_mnist(tmp_path, 60, 20)
    for dataset in ready(MNISTDataModule, tmp_path).datasets.values():
        rows = dataset.images[:, 0].float().mean(dim=2)
        assert torch.equal((rows.argmax(dim=1) - 4) // 2, dataset.labels)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "starts with 0x, not with 0x00000803 as IDX does"),
        (b"\0\0\x08\x01" + bytes(100), "starts with 0x00000801, not with 0x00000803 as IDX does"),
        (b"\0\0\x08\x03" + bytes(5), "holds 9 bytes where its header announces 16"),
        (
            b"\0\0\x08\x03\0\0\0\x3c\0\0\0\x1c\0\0\0\x1c" + bytes(99),
            "holds 115 bytes where its header announces 47056",
        ),
        (b"\0\0\x08\x03" + b"\xff" * 12, "holds 16 bytes where its header announces"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    write_mnist(tmp_path, 60, 20)
    path = tmp_path / "MNIST/raw" / TRAIN_IMAGES
    path.write_bytes(content)
    message = refusal(ready, MNISTDataModule, tmp_path)
    assert message.startswith(f"root='{tmp_path}': {path} {fault}")
    assert message.endswith("; replace the file, or delete it and set download=true")


def test_arrays_that_are_not_mnist_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST/raw"
    for file, array, fault in [
        (TRAIN_IMAGES, np.zeros((60, 28, 27)), "holds images of 28 × 27 pixels, not 28 × 28"),
        (TRAIN_LABELS, np.zeros(59), "holds 59 labels for 60 images"),
        (TRAIN_LABELS, np.full(60, 10), "holds labels from 10 to 10, not 0 to 9"),
        ("t10k-labels-idx1-ubyte", np.arange(21), "holds 21 labels for 20 images"),
    ]:
        write_mnist(tmp_path, 60, 20)
        write_idx(folder / file, array)
        message = refusal(ready, MNISTDataModule, tmp_path)
        assert message.startswith(f"root='{tmp_path}': {folder / file} {fault};")


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, 60, 0)
    assert "t10k-labels-idx1-ubyte holds no images" in refusal(ready, MNISTDataModule, tmp_path)
