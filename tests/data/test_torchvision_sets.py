"""torchvision's data sets by name: its formats, its splits, its downloads; no network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import write_idx, write_mnist
from PIL import Image
from refusals import refusal
from torchvision import datasets

from lightning_attractors.data import TorchvisionDataModule


@pytest.fixture(autouse=True)
def _folder(empty_folder):
    """Data are in a folder of the test's own."""


class Shapes(datasets.VisionDataset):
    """Pictures of two sizes whose labels are 3, 5 and 9; can be had in one way that a test says."""

    classes = tuple("abcdefghij")
    problem = None

    def __init__(self, root, split="train", download=False):
        super().__init__(root)
        marker = Path(root, "shapes.txt")
        if download:
            if self.problem:
                raise self.problem
            marker.write_text("here")
        if not marker.exists():
            raise RuntimeError("Dataset not found")
        self.targets = np.array([3, 5, 9]).repeat(6 if split == "train" else 2)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        size, label = (8, 8) if index % 2 else (12, 9), self.targets[index]
        return Image.new("RGB", size, (int(index), 0, 0)), label


class Whole(Shapes):
    """Has no splits and no names, and is not downloaded."""

    classes = None

    def __init__(self, root):
        super().__init__(root)


class Boxes(Whole):
    """Its targets are no classes."""

    def __init__(self, root):
        super().__init__(root)
        self.targets = [{"boxes": []}] * 4


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    for kind in (Shapes, Whole, Boxes):
        monkeypatch.setattr(datasets, kind.__name__, kind, raising=False)


def ready(name, **settings):
    data = TorchvisionDataModule(name, **settings)
    data.prepare_data()
    data.setup()
    return data


def test_kmnist_is_read_from_its_own_files():
    arrays = write_mnist("data", 60, 20)
    Path("data/MNIST").rename("data/KMNIST")
    data = ready("KMNIST", download=False)
    assert (data.image_shape, data.num_classes) == ((1, 28, 28), 10)
    assert data.class_names == datasets.KMNIST.classes
    test = data.datasets["test"]
    assert torch.equal(test.images[:, 0], torch.from_numpy(arrays["t10k-images-idx3-ubyte"]))
    assert test.labels.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    assert torch.bincount(data.datasets["train"].labels).tolist() == [5] * 10
    assert torch.bincount(data.datasets["val"].labels).tolist() == [1] * 10


def test_arguments_of_the_class_are_options_and_labels_count_from_0():
    folder = Path("data/EMNIST/raw")
    folder.mkdir(parents=True)
    for part in ("train", "test"):  # of letters, whose labels are 1 to 26
        labels = np.arange(26 * 4) % 26 + 1
        write_idx(folder / f"emnist-letters-{part}-labels-idx1-ubyte", labels)
        write_idx(folder / f"emnist-letters-{part}-images-idx3-ubyte", np.ones((len(labels), 28, 28)))
    data = ready("EMNIST", options={"split": "letters"}, download=False, image_size=14)
    assert data.image_shape == (1, 14, 14)
    assert data.class_names == list("abcdefghijklmnopqrstuvwxyz")
    assert data.datasets["test"].labels.tolist() == [k % 26 for k in range(104)]
    assert "options={}: EMNIST: TypeError: " in refusal(ready, "EMNIST")


def test_missing_files_are_downloaded_once_by_the_class_itself(monkeypatch):
    data = ready("Shapes")
    assert (data.image_shape, data.class_names, data.num_classes) == ((3, 9, 12), ["d", "f", "j"], 3)
    assert [len(data.datasets[name]) for name in ("train", "val", "test")] == [15, 3, 6]
    assert data.datasets["test"].images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert data.datasets["test"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    monkeypatch.setattr(Shapes, "problem", AssertionError("is not downloaded again"))
    assert ready("Shapes", channels=1, image_size=(6, 5)).image_shape == (1, 6, 5)


def test_a_set_without_splits_is_split():
    Path("data").mkdir()
    Path("data/shapes.txt").touch()
    data = ready("Whole")
    assert [len(data.datasets[name]) for name in ("train", "val", "test")] == [12, 3, 3]
    assert data.class_names == ["3", "5", "9"]


def test_streamed_pictures_are_those_in_memory():
    held, streamed = ready("Shapes"), ready("Shapes", in_memory=False, num_workers=1)
    for (images, labels), (others, theirs) in zip(
        held.train_dataloader(), streamed.train_dataloader(), strict=True
    ):
        assert torch.equal(images, others)
        assert torch.equal(labels, theirs)


def test_what_cannot_be_had_is_one_line(monkeypatch):
    expected = "name='KMNISTT': must be a class of torchvision.datasets; did you mean KMNIST?"
    assert refusal(ready, "KMNISTT") == expected
    expected = "root='data': no Shapes files that can be used; set download=true"
    assert refusal(ready, "Shapes", download=False) == expected
    expected = "root='data': no Whole files that can be used; torchvision does not download them"
    assert refusal(ready, "Whole") == expected
    monkeypatch.setattr(Shapes, "problem", OSError("no\nroute"))
    assert refusal(ready, "Shapes") == (
        "download=True: Shapes could not be downloaded (OSError: no route); "
        "check the network, or put the files into data"
    )
    assert "must be arguments of Shapes, not ['wrong']" in refusal(ready, "Shapes", options={"wrong": 1})


def test_what_has_no_classes_is_refused():
    Path("data").mkdir()
    Path("data/shapes.txt").touch()
    assert refusal(ready, "Boxes") == "name='Boxes': must be a data set of images with one class each"
