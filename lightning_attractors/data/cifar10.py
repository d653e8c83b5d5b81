"""CIFAR-10, read from its original pickles."""

from __future__ import annotations

import io
import pickle
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from lightning_attractors.data.base import Labelled
from lightning_attractors.data.files import FilesDataModule
from lightning_attractors.errors import one_line


class CIFAR10DataModule(FilesDataModule):
    """CIFAR-10: colour photographs, 50 000 training and 10 000 test images of shape (3, 32, 32).

    The files are those of ``torchvision.datasets.CIFAR10``, in ``cifar-10-batches-py`` below ``root``.
    Settings and errors are those of :class:`FilesDataModule`.
    """

    image_shape = (3, 32, 32)
    source = datasets.CIFAR10
    folder = datasets.CIFAR10.base_folder
    archives: ClassVar[list[str]] = [datasets.CIFAR10.filename]
    checksums: ClassVar[dict[str, str]] = dict(datasets.CIFAR10.train_list + datasets.CIFAR10.test_list)
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def read_split(self, train: bool) -> Labelled:
        """The training or test images as the files have them, checked."""
        files = datasets.CIFAR10.train_list if train else datasets.CIFAR10.test_list
        batches = [self._read_batch(name) for name, _ in files]
        images = torch.cat([images for images, _ in batches])
        return Labelled(images, torch.cat([labels for _, labels in batches]))

    def _read_batch(self, name: str) -> tuple[Tensor, Tensor]:
        """Images (n, 3, 32, 32) and labels (n,) of a file: a dictionary of rows of 3072 bytes and labels."""
        content = self.read_bytes(name)
        try:
            entry = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
            data, labels = entry["data"], np.asarray(entry["labels"])
        except Exception as error:  # a damaged pickle can raise anything
            reason = one_line(f"{type(error).__name__}: {error}")
            raise self.bad_file(name, f"is no pickle of CIFAR-10 data ({reason})") from error
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
            kind = data.dtype if isinstance(data, np.ndarray) else type(data).__name__
            found = f"{kind} of shape {np.shape(data)}"
            raise self.bad_file(name, f"holds data that are {found}, not uint8 of shape (n, 3072)")
        if labels.ndim != 1 or labels.dtype.kind != "i":
            raise self.bad_file(name, "holds labels that are not a list of integers")
        images, classes = torch.from_numpy(data).view(-1, *self.image_shape), torch.from_numpy(labels).long()
        self.check_labels(name, images, classes)
        return images, classes


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays and plain data only: a pickle from elsewhere could name, and so run, any function."""

    # numpy.core before NumPy 2, numpy._core since
    rooms = ("numpy.core", "numpy._core")
    modules = (
        "numpy",
        *(f"{room}.{part}" for room in rooms for part in ("multiarray", "numeric")),
        "_codecs",
    )
    names = ("ndarray", "dtype", "_reconstruct", "_frombuffer", "encode")

    def find_class(self, module: str, name: str) -> Any:
        if module in self.modules and name in self.names:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")
