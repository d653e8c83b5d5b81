"""MNIST, Fashion-MNIST and CIFAR-10 from files in the original formats, whole and damaged."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from data_files import write_cifar10, write_idx, write_mnist
from torchvision import datasets

from lightning_attractors.data import CIFAR10DataModule, FashionMNISTDataModule, MNISTDataModule
from lightning_attractors.data.files import FilesDataModule
from lightning_attractors.errors import SettingError

MODULES = {"mnist": MNISTDataModule, "fashion": FashionMNISTDataModule, "cifar10": CIFAR10DataModule}
LOCAL = {"download": False, "verify_checksums": False, "val_size": 10}
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def write(name: str, root: Path, n_train: int = 60, n_test: int = 20) -> None:
    if name == "cifar10":
        write_cifar10(root, n_train, n_test)
    else:
        write_mnist(root, n_train, n_test, fashion=name == "fashion")


def ready(module: type[FilesDataModule], root: Path, **settings: Any) -> FilesDataModule:
    data = module(root=str(root), **{**LOCAL, **settings})
    data.prepare_data()
    data.setup()
    return data


def refusal(module: type[FilesDataModule], root: Path, **settings: Any) -> str:
    """The message that comes before training, checked to be one line."""
    with pytest.raises(SettingError) as caught:
        ready(module, root, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


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


def test_cifar10_pixels_come_back_exactly(tmp_path: Path) -> None:
    written = write_cifar10(tmp_path, 63, 20)
    data = ready(CIFAR10DataModule, tmp_path, val_size=0)
    images, labels = next(iter(data.test_dataloader()))
    assert images.shape == (20, 3, 32, 32)
    assert torch.equal(images, torch.from_numpy(written["test_batch"][0]) / 255)
    assert labels.tolist() == written["test_batch"][1].tolist()
    batches = np.concatenate([written[f"data_batch_{number}"][0] for number in range(1, 6)])
    assert same_images(data.datasets["train"].images.numpy(), batches)


def same_images(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two arrays hold the same images in any order."""
    return sorted(image.tobytes() for image in first) == sorted(image.tobytes() for image in second)


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


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    write_mnist(tmp_path, 60, 20)
    for dataset in ready(MNISTDataModule, tmp_path).datasets.values():
        rows = dataset.images[:, 0].float().mean(dim=2)
        assert torch.equal((rows.argmax(dim=1) - 4) // 2, dataset.labels)


def test_checksums_accept_the_originals_only(tmp_path: Path) -> None:
    write_cifar10(tmp_path, 60, 20)
    message = refusal(CIFAR10DataModule, tmp_path, verify_checksums=True)
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
    assert f"MD5 of {labels} differs" in refusal(MNISTDataModule, tmp_path, verify_checksums=True)


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
    assert f"no {TRAIN_LABELS} in data/MNIST/raw; set" in refusal(MNISTDataModule, Path("data"))
    with pytest.raises(SettingError, match=r"call prepare_data\(\) to download"):
        MNISTDataModule(download=True).setup()


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
    message = refusal(MNISTDataModule, tmp_path)
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
        assert refusal(MNISTDataModule, tmp_path).startswith(f"root='{tmp_path}': {folder / file} {fault};")


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, 60, 0)
    assert "t10k-labels-idx1-ubyte holds no images" in refusal(MNISTDataModule, tmp_path)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, 60, 20)

    def deny(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", deny)
    assert f"{TRAIN_IMAGES} cannot be read (Permission denied)" in refusal(MNISTDataModule, tmp_path)


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
    assert refusal(CIFAR10DataModule, tmp_path).startswith(f"root='{tmp_path}': {path} {fault}")
    assert capsys.readouterr().out == ""


def test_a_truncated_cifar10_file_is_refused(tmp_path: Path) -> None:
    write_cifar10(tmp_path, 60, 20)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    path.write_bytes(path.read_bytes()[:-1000])
    assert f"{path} is no pickle of CIFAR-10 data" in refusal(CIFAR10DataModule, tmp_path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_cifar10_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    written = write_cifar10(tmp_path, 60, 20)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()), protocol=protocol))
    images = ready(CIFAR10DataModule, tmp_path).datasets["test"].images
    assert torch.equal(images, torch.from_numpy(written["test_batch"][0]))


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
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    write_mnist(tmp_path, 60, 20)
    assert refusal(MNISTDataModule, tmp_path, **settings) == message


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
    message = refusal(MNISTDataModule, tmp_path / "data", download=True)
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
    message = refusal(CIFAR10DataModule, tmp_path / "file/data", download=True)
    assert message.startswith("download=True: CIFAR10 could not be downloaded (")
