"""Data sets kept as files in torchvision's folders: finding, downloading, checking and splitting them."""

from __future__ import annotations

import hashlib
import os
import shutil
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, cast

import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, MNIST

from lightning_attractors.data.base import ImageSettings, InMemoryDataModule, Labelled
from lightning_attractors.data.generators import Stream, keyed_generator
from lightning_attractors.errors import SettingError, one_line, require
from lightning_attractors.keywords import Unpack


class FilesDataModule(InMemoryDataModule):
    """Base of the data sets that torchvision downloads.

    Validation images are split off the training images by a permutation that ``split_seed`` alone decides,
    so that runs with other seeds validate on the same images. The rest is the training part, in the
    permutation's order, of which ``train_subset`` keeps the beginning.

    A subclass sets the class attributes and writes :meth:`read_split`.

    Args:
        root: folder that holds the data set's own folder.
        download: whether missing files are downloaded, by one process per node.
        verify_checksums: whether the files must be the originals, by MD5.
        val_size: number of validation images, at least 0 and below the number of training images; 0 means
            that there is no validation.
        train_subset: number of training images to use, at least 1; all by default.
        split_seed: seed of the split into training and validation images, at least 0.
        **images: the settings of :class:`~lightning_attractors.data.InMemoryDataModule`.

    Raises:
        SettingError: in the constructor, when a setting is out of range; in ``prepare_data`` and ``setup``,
            when files are missing or are not what they should be.
    """

    source: ClassVar[type[MNIST] | type[CIFAR10]]
    """torchvision's class, which knows how to download the files."""
    folder: ClassVar[str]
    """The folder of the files, below the root."""
    archives: ClassVar[list[str]]
    """Paths, below the root, of the downloads that the files come in."""
    checksums: ClassVar[dict[str, str]]
    """MD5 of each file's original."""
    classes: ClassVar[tuple[str, ...]]
    """The names of the classes, in the order of the labels."""

    num_classes = 10

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
        verify_checksums: bool = True,
        val_size: int = 5000,
        train_subset: int | None = None,
        split_seed: int = 0,
        **images: Unpack[ImageSettings],
    ) -> None:
        super().__init__(**images)
        require(val_size >= 0, "val_size", val_size, "must be at least 0")
        require(train_subset is None or train_subset >= 1, "train_subset", train_subset, "must be at least 1")
        require(split_seed >= 0, "split_seed", split_seed, "must be at least 0")
        self.class_names = list(self.classes)
        self.root = root
        self.download = download
        self.verify_checksums = verify_checksums
        self.val_size = val_size
        self.train_subset = train_subset
        self.split_seed = split_seed

    def read_split(self, train: bool) -> Labelled:
        """All training or test images as the files have them, checked."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Download what is missing, or say that it is."""
        if self.download and self._missing_files():
            self._download()
        self._require_files()

    def load_splits(self) -> tuple[Labelled, Labelled, Labelled]:
        self._require_files()
        train, test = self.read_split(train=True), self.read_split(train=False)
        total = len(train.labels)
        require(
            self.val_size < total, "val_size", self.val_size, f"must be below the {total} training images"
        )
        available = total - self.val_size
        subset = available if self.train_subset is None else self.train_subset
        require(
            subset <= available, "train_subset", subset, f"must be at most {available}, what val_size leaves"
        )
        order = torch.from_numpy(keyed_generator(Stream.VALIDATION_SPLIT, self.split_seed).permutation(total))
        val_indices, train_indices = order[: self.val_size], order[self.val_size :][:subset]
        images = cast(Tensor, train.images)
        val = Labelled(images[val_indices], train.labels[val_indices])
        return Labelled(images[train_indices], train.labels[train_indices]), val, test

    def read_bytes(self, name: str) -> bytes:
        """The content of a file of the data set.

        Raises:
            SettingError: if it cannot be read, or ``verify_checksums`` is set and it is not the original.
        """
        path = self._path(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise self.bad_file(name, f"cannot be read ({error.strerror})") from error
        if self.verify_checksums:
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            require(
                md5 == self.checksums[name],
                "verify_checksums",
                True,
                f"MD5 of {path} differs from the original's; set verify_checksums=false to accept this copy, "
                "or delete the file and set download=true",
            )
        return content

    def bad_file(self, name: str, fault: str) -> SettingError:
        """The error to raise for a file of the data set that is not what it should be."""
        advice = "replace the file, or delete it and set download=true"
        return SettingError("root", self.root, f"{self._path(name)} {fault}; {advice}")

    def check_labels(self, name: str, images: Tensor, labels: Tensor) -> None:
        """Check that there are images, one label for each, and that labels are classes."""
        if len(images) == 0:
            raise self.bad_file(name, "holds no images")
        if len(labels) != len(images):
            raise self.bad_file(name, f"holds {len(labels)} labels for {len(images)} images")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            raise self.bad_file(name, f"holds labels from {low} to {high}, not 0 to {self.num_classes - 1}")

    def _path(self, name: str) -> Path:
        return Path(self.root).expanduser() / self.folder / name

    def _missing_files(self) -> list[str]:
        return [name for name in self.checksums if not self._path(name).is_file()]

    def _require_files(self) -> None:
        missing = self._missing_files()
        what = f"{self.source.__name__} files" if len(missing) == len(self.checksums) else ", ".join(missing)
        remedy = "call prepare_data() to download" if self.download else "set download=true"
        require(
            not missing,
            "root",
            self.root,
            f"no {what} in {Path(self.root) / self.folder}; {remedy} or point root at the folder that holds "
            f"{self.folder}",
        )

    def _download(self) -> None:
        """Download aside and move finished files into place: an interrupted download leaves none there."""
        root = Path(self.root).expanduser()
        try:
            root.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".download-", dir=root) as name:
                aside = Path(name)
                self._copy_archives(root, aside)
                self.source(aside, download=True)
                (root / self.folder).mkdir(parents=True, exist_ok=True)
                for file in (aside / self.folder).iterdir():
                    if file.suffix != ".gz":
                        os.replace(file, root / self.folder / file.name)
        except (OSError, RuntimeError, HTTPException) as error:
            reason = one_line(error)
            raise SettingError(
                "download",
                True,
                f"{self.source.__name__} could not be downloaded ({reason}); check the network, or put the "
                f"files into {Path(self.root) / self.folder}",
            ) from error

    def _copy_archives(self, root: Path, aside: Path) -> None:
        """Save the download of archives that are there already; torchvision checks their MD5."""
        for archive in self.archives:
            if (root / archive).is_file():
                (aside / archive).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / archive, aside / archive)
