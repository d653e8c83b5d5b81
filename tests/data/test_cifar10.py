"""CIFAR-10 from files in the original format, whole and damaged."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import ready, same_images, write_cifar10
from refusals import refusal

from lightning_attractors.data import CIFAR10DataModule


def test_cifar10_pixels_come_back_exactly(tmp_path: Path) -> None:
    written = write_cifar10(tmp_path, 63, 20)
    data = ready(CIFAR10DataModule, tmp_path, val_size=0)
    images, labels = next(iter(data.test_dataloader()))
    assert images.shape == (20, 3, 32, 32)
    assert torch.equal(images, torch.from_numpy(written["test_batch"][0]) / 255)
    assert labels.tolist() == written["test_batch"][1].tolist()
    batches = np.concatenate([written[f"data_batch_{number}"][0] for number in range(1, 6)])
    assert same_images(data.datasets["train"].images.numpy(), batches)


class Intruder:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("a pickle ran code",)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is no pickle of CIFAR-10 data (EOFError"),
        (b"this is no pickle", "is no pickle of CIFAR-10 data (UnpicklingError"),
        (pickle.dumps({"labels": [1]}), "is no pickle of CIFAR-10 data (KeyError: 'data')"),
        (pickle.dumps([1, 2]), "is no pickle of CIFAR-10 data (TypeError"),
        (
            pickle.dumps(Intruder()),
            "is no pickle of CIFAR-10 data (UnpicklingError: it names builtins.print)",
        ),
        (
            {"data": np.zeros((12, 3071), np.uint8)},
            "holds data that are uint8 of shape (12, 3071), not uint8",
        ),
        ({"data": np.zeros((12, 3072))}, "holds data that are float64 of shape (12, 3072), not uint8"),
        ({"data": [0, 1]}, "holds data that are list of shape (2,), not uint8"),
        ({"labels": list(range(11))}, "holds 11 labels for 12 images"),
        ({"labels": [0, 11, *range(10)]}, "holds labels from 0 to 11, not 0 to 9"),
        ({"labels": [-1, 9, *range(10)]}, "holds labels from -1 to 9, not 0 to 9"),
        ({"labels": ["frog"] * 12}, "holds labels that are not a list of integers"),
        ({"labels": [0.5] * 12}, "holds labels that are not a list of integers"),
        ({"labels": [[0]] * 12}, "holds labels that are not a list of integers"),
    ],
)
def test_damaged_cifar10_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | dict[str, Any], fault: str
) -> None:
    write_cifar10(tmp_path, 60, 20)
    path = tmp_path / "cifar-10-batches-py/data_batch_3"
    if isinstance(content, dict):
        content = pickle.dumps({**pickle.loads(path.read_bytes()), **content})
    path.write_bytes(content)
    assert refusal(ready, CIFAR10DataModule, tmp_path).startswith(f"root='{tmp_path}': {path} {fault}")
    assert capsys.readouterr().out == ""


def test_a_truncated_cifar10_file_is_refused(tmp_path: Path) -> None:
    write_cifar10(tmp_path, 60, 20)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    path.write_bytes(path.read_bytes()[:-1000])
    assert f"{path} is no pickle of CIFAR-10 data" in refusal(ready, CIFAR10DataModule, tmp_path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_cifar10_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    written = write_cifar10(tmp_path, 60, 20)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()), protocol=protocol))
    images = ready(CIFAR10DataModule, tmp_path).datasets["test"].images
    assert torch.equal(images, torch.from_numpy(written["test_batch"][0]))
