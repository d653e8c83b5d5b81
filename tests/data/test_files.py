"""What data sets in files have in common: splits, checksums, what is missing, downloads."""

from __future__ import annotations

import gzip
import hashlib
import math
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from data_files import ready, same_images, write_cifar10, write_mnist
from refusals import refusal
from torchvision import datasets

from lightning_attractors.data import CIFAR10DataModule, FashionMNISTDataModule, MNISTDataModule
from lightning_attractors.errors import SettingError

MODULES = {"mnist": MNISTDataModule, "fashion": FashionMNISTDataModule, "cifar10": CIFAR10DataModule}
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def write(name: str, root: Path, n_train: int = 60, n_test: int = 20) -> None:
    if name == "cifar10":
        write_cifar10(root, n_train, n_test)
    else:
        write_mnist(root, n_train, n_test, fashion=name == "fashion")


@pytest.mark.parametrize("name", MODULES)
def test_what_models_need_is_known_before_any_file_is_there(name: str) -> None:
    data = MODULES[name]()
    assert data.num_classes == 10
    assert data.image_shape == ((3, 32, 32) if name == "cifar10" else (1, 28, 28))
    assert len(set(data.class_names)) == 10


@pytest.mark.parametrize("name", MODULES)
def test_the_split_is_disjoint_complete_and_follows_its_seed_only(name: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    module = MODULES[name]
    data = ready(module, tmp_path, val_size=15)
    parts = [data.datasets[split].images.numpy() for split in ("train", "val")]
    assert [len(part) for part in parts] == [45, 15]
    whole = ready(module, tmp_path, val_size=0).datasets["train"].images.numpy()
    assert same_images(np.concatenate(parts), whole)
    assert len({image.tobytes() for image in whole}) == 60
    again = ready(module, tmp_path, val_size=15, seed=9).datasets["val"].images
    other = ready(module, tmp_path, val_size=15, split_seed=9).datasets["val"].images
    assert torch.equal(again, data.datasets["val"].images)
    assert not torch.equal(other, again)


def test_a_train_subset_is_the_beginning_of_the_training_part(tmp_path: Path) -> None:
    write_mnist(tmp_path, 60, 20)
    whole = ready(MNISTDataModule, tmp_path).datasets
    subset = ready(MNISTDataModule, tmp_path, train_subset=7).datasets
    assert torch.equal(subset["train"].images, whole["train"].images[:7])
    assert torch.equal(subset["train"].labels, whole["train"].labels[:7])
    assert torch.equal(subset["val"].images, whole["val"].images)


def test_checksums_accept_the_originals_only(tmp_path: Path) -> None:
    write_cifar10(tmp_path, 60, 20)
    message = refusal(ready, CIFAR10DataModule, tmp_path, verify_checksums=True)
    assert message.startswith(
        f"verify_checksums=True: MD5 of {tmp_path}/cifar-10-batches-py/data_batch_1 differs"
    )
    assert "set verify_checksums=false to accept this copy" in message


def test_checksums_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, 60, 20)
    monkeypatch.setattr(MNISTDataModule, "checksums", md5_of_files(tmp_path / "MNIST/raw"))
    ready(MNISTDataModule, tmp_path, verify_checksums=True)
    labels = tmp_path / "MNIST/raw" / TRAIN_LABELS
    labels.write_bytes(labels.read_bytes()[:-1] + b"\7")
    assert f"MD5 of {labels} differs" in refusal(ready, MNISTDataModule, tmp_path, verify_checksums=True)


def md5_of_files(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_missing_files_are_reported_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError) as caught:
        MNISTDataModule(download=False).prepare_data()
    assert str(caught.value) == (
        "root='data': no MNIST files in data/MNIST/raw; "
        "set download=true or point root at the folder that holds MNIST/raw"
    )
    write_mnist("data", 60, 20)
    Path("data/MNIST/raw", TRAIN_LABELS).unlink()
    assert f"no {TRAIN_LABELS} in data/MNIST/raw; set" in refusal(ready, MNISTDataModule, Path("data"))
    with pytest.raises(SettingError, match=r"call prepare_data\(\) to download"):
        MNISTDataModule(download=True).setup()


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, 60, 20)

    def deny(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", deny)
    assert f"{TRAIN_IMAGES} cannot be read (Permission denied)" in refusal(ready, MNISTDataModule, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_size": -1}, "val_size=-1: must be at least 0"),
        ({"val_size": 60}, "val_size=60: must be below the 60 training images"),
        ({"train_subset": 0}, "train_subset=0: must be at least 1"),
        ({"train_subset": 51}, "train_subset=51: must be at most 50, what val_size leaves"),
        ({"split_seed": -3}, "split_seed=-3: must be at least 0"),
        ({"max_shift": -1}, "max_shift=-1: must be from 0 to 27 pixels"),
        ({"max_shift": 28}, "max_shift=28: must be from 0 to 27 pixels"),
        ({"noise_train": 2.0}, "noise_train=2.0: must be from 0 to 1"),
        ({"gaussian_noise": -0.1}, "gaussian_noise=-0.1: must be finite and at least 0"),
        ({"gaussian_noise": math.inf}, "gaussian_noise=inf: must be finite and at least 0"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    write_mnist(tmp_path, 60, 20)
    assert refusal(ready, MNISTDataModule, tmp_path, **settings) == message


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the network: torchvision downloads MNIST from it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    write_mnist(tmp_path / "original", 60, 20)
    raw = tmp_path / "original/MNIST/raw"
    for file in raw.iterdir():
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", fetch)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [folder.as_uri() + "/"])
    monkeypatch.setattr(datasets.MNIST, "resources", list(md5_of_files(folder).items()))
    monkeypatch.setattr(MNISTDataModule, "checksums", md5_of_files(raw))
    return folder


def fetch(url: str, filename: str) -> None:
    """As torchvision's, which asks a response for its length: that of a file:// address has none."""
    with urlopen(url) as response:
        Path(filename).write_bytes(response.read())


def test_missing_files_are_downloaded_once(tmp_path: Path, mirror: Path) -> None:
    root = tmp_path / "data"
    ready(MNISTDataModule, root, download=True, verify_checksums=True)
    assert [path.name for path in root.iterdir()] == ["MNIST"]
    assert {path.name for path in (root / "MNIST/raw").iterdir()} == set(MNISTDataModule.checksums)
    for file in mirror.iterdir():
        file.unlink()
    ready(MNISTDataModule, root, download=True, verify_checksums=True)


def test_archives_that_are_there_are_not_downloaded(tmp_path: Path, mirror: Path) -> None:
    root = tmp_path / "data"
    (root / "MNIST").mkdir(parents=True)
    mirror.rename(root / "MNIST/raw")
    ready(MNISTDataModule, root, download=True, verify_checksums=True)


def test_a_failing_download_is_one_line(tmp_path: Path, mirror: Path) -> None:
    next(mirror.glob("train-labels*")).unlink()
    message = refusal(ready, MNISTDataModule, tmp_path / "data", download=True)
    assert message.startswith("download=True: MNIST could not be downloaded (Error downloading train-labels")
    assert message.endswith(f"put the files into {tmp_path}/data/MNIST/raw")


def test_an_interrupted_download_leaves_nothing_that_looks_like_data(
    tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(dataset: datasets.MNIST) -> None:
        Path(dataset.raw_folder).mkdir(parents=True)
        for name in MNISTDataModule.checksums:
            Path(dataset.raw_folder, name).write_bytes(b"half a fi")
        raise KeyboardInterrupt

    root = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(datasets.MNIST, "download", interrupted)
        with pytest.raises(KeyboardInterrupt):
            MNISTDataModule(root=str(root)).prepare_data()
    assert list(root.rglob("*")) == []
    ready(MNISTDataModule, root, download=True, verify_checksums=True)


def test_a_root_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refusal(ready, CIFAR10DataModule, tmp_path / "file/data", download=True)
    assert message.startswith("download=True: CIFAR10 could not be downloaded (")
