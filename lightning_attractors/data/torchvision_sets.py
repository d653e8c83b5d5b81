"""Any of torchvision's data sets of images with one class each, by its name."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL.Image import Image
from torch import Tensor
from torchvision import datasets
from torchvision.datasets import VisionDataset

from lightning_attractors.contracts import classes_of, labels_of
from lightning_attractors.data.pictures import PictureDataModule, Pictures, PictureSettings
from lightning_attractors.errors import SettingError, one_line, require
from lightning_attractors.image_files import image_bytes
from lightning_attractors.keywords import Unpack
from lightning_attractors.process import one_at_a_time

_GREY = ("1", "L", "I;16", "I")


class TorchvisionDataModule(PictureDataModule):
    """A data set of torchvision's, such as KMNIST or SVHN, by its own download and its own checks.

    Its training and test split are used, or where it has none all of it is split. Files are looked for, and
    downloaded where they are missing, by the constructor, since models are told the shape of images and the
    classes. Labels are counted from 0 on, whatever the data set calls them.

    Args:
        name: the class in ``torchvision.datasets``.
        root: the folder of its files, as torchvision's.
        download: whether missing files are downloaded.
        image_size: side of the images in pixels, or height and width; by default that of the first image.
        channels: 3 for colour, 1 for grey; by default as the first image is.
        options: further arguments of the class, such as ``{split: letters}`` of EMNIST.
        **pictures: the settings of :class:`~lightning_attractors.data.pictures.PictureDataModule`.

    Raises:
        SettingError: when a setting is out of range, there is no such data set, it cannot be had, or it is of
            another kind.
    """

    def __init__(
        self,
        name: str,
        root: str = "data",
        download: bool = True,
        image_size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] | None = None,
        options: dict[str, Any] | None = None,
        **pictures: Unpack[PictureSettings],
    ) -> None:
        self.name = self.dataset_name = name
        self.root, self.download, self.options = root, download, dict(options or {})
        with one_at_a_time("download"):  # of several processes the first one downloads, and the others find
            self._parts = self._load(_class_of(name))
        self.image_shape = self._image_shape(image_size, channels)
        super().__init__(**pictures)
        self._labels = {split: self._labels_of(part) for split, part in self._parts.items()}
        present = np.unique(self._labels["train"])
        require(len(present) >= 2, "name", name, "must have at least 2 classes")
        names = classes_of(self._parts["train"]) or []
        self._present = present
        self.class_names = [names[k] if 0 <= k < len(names) else str(k) for k in present.tolist()]
        self.num_classes = len(present)

    def find_splits(self) -> dict[str, Pictures]:
        """The pictures of all splits that the data set has."""
        found = {}
        for split, part in self._parts.items():
            labels = self._labels[split]
            unknown = sorted({*labels.tolist()} - {*self._present.tolist()})
            valid = f"its {split} split has classes that train lacks: {unknown}"
            require(not unknown, "name", self.dataset_name, valid)
            read = partial(_read, self.dataset_name, part, self.image_shape)
            places = np.searchsorted(self._present, labels)
            found[split] = Pictures(read, np.arange(len(labels)), places, self.image_shape)
        return found

    def _load(self, kind: type[VisionDataset]) -> dict[str, VisionDataset]:
        """The data set's splits, by our names."""
        known = _arguments(kind)
        stranger = sorted({*self.options} - {*known})
        require(
            not stranger, "options", self.options, f"must be arguments of {self.dataset_name}, not {stranger}"
        )
        if "train" in known:
            return {"train": self._get(kind, train=True), "test": self._get(kind, train=False)}
        if "split" in known and "split" not in self.options:
            return {"train": self._get(kind, split="train"), "test": self._get(kind, split="test")}
        return {"train": self._get(kind)}

    def _get(self, kind: type[VisionDataset], **split: Any) -> VisionDataset:
        """A split, downloaded only where its files are not there."""
        settings = {**self.options, **split}
        downloads = "download" in _arguments(kind)
        root = Path(self.root).expanduser()
        try:
            return kind(root, **settings)
        except (RuntimeError, OSError) as error:
            if not (downloads and self.download):
                remedy = "set download=true" if downloads else "torchvision does not download them"
                valid = f"no {self.dataset_name} files that can be used; {remedy}"
                raise SettingError("root", self.root, valid) from error
        except Exception as error:  # whatever its arguments make it raise
            raise SettingError("options", self.options, f"{self.dataset_name}: {_told(error)}") from error
        try:
            root.mkdir(parents=True, exist_ok=True)
            return kind(root, download=True, **settings)
        except Exception as error:  # of a network or a damaged file, anything
            problem = f"{self.dataset_name} could not be downloaded ({_told(error)})"
            remedy = f"check the network, or put the files into {self.root}"
            raise SettingError("download", True, f"{problem}; {remedy}") from error

    def _image_shape(
        self, size: int | tuple[int, int] | None, channels: Literal[1, 3] | None
    ) -> tuple[int, int, int]:
        first = _picture(self.dataset_name, self._parts["train"], 0)
        if size is None:
            width, height = first.size
        else:
            height, width = (size, size) if isinstance(size, int) else size
        require(min(height, width) >= 1, "image_size", size, "must be null or at least 1")
        require(channels in (None, 1, 3), "channels", channels, "must be null, 1 for grey or 3 for colour")
        return channels or (1 if first.mode in _GREY else 3), height, width

    def _labels_of(self, part: VisionDataset) -> np.ndarray:
        """The labels of a split, shape (n,), int64."""
        given = labels_of(part)
        labels = np.asarray([part[i][1] for i in range(len(part))] if given is None else given)
        valid = "must be a data set of images with one class each"
        require(labels.shape == (len(part),) and labels.dtype.kind in "iu", "name", self.dataset_name, valid)
        return labels.astype(np.int64)


def _read(name: str, part: VisionDataset, image_shape: tuple[int, int, int], index: int) -> Tensor:
    return image_bytes(_picture(name, part, index), image_shape)


def _picture(name: str, part: VisionDataset, index: int) -> Image:
    valid = "must be a data set of images with one class each"
    require(index < len(part), "name", name, "has no images")
    example = part[index]
    fits = isinstance(example, tuple) and len(example) == 2 and isinstance(example[0], Image)
    require(fits, "name", name, valid)
    return example[0]


def _class_of(name: str) -> type[VisionDataset]:
    kinds = {key: kind for key, kind in vars(datasets).items() if isinstance(kind, type)}
    known = {key: kind for key, kind in kinds.items() if issubclass(kind, VisionDataset)}
    close = get_close_matches(name.casefold(), [key.casefold() for key in known], n=1)
    meant = next((f"; did you mean {key}?" for key in known if [key.casefold()] == close), "")
    require(name in known, "name", name, f"must be a class of torchvision.datasets{meant}")
    return known[name]


def _arguments(kind: type[VisionDataset]) -> set[str]:
    """What a class can be given: some pass on by keyword what their base takes."""
    names: set[str] = set()
    for base in kind.__mro__:
        known = inspect.signature(base).parameters
        names |= {*known}
        if all(one.kind != one.VAR_KEYWORD for one in known.values()):
            break
    return names


def _told(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")
