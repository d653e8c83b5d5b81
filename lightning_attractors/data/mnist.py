"""MNIST and Fashion-MNIST, read from their original IDX files."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from lightning_attractors.data.base import Labelled
from lightning_attractors.data.files import FilesDataModule


class MNISTDataModule(FilesDataModule):
    """MNIST: handwritten digits, 60 000 training and 10 000 test images of shape (1, 28, 28).

    The files are those of ``torchvision.datasets.MNIST``, in ``MNIST/raw`` below ``root``. Settings and
    errors are those of :class:`FilesDataModule`.
    """

    image_shape = (1, 28, 28)
    source = datasets.MNIST
    folder = "MNIST/raw"
    archives: ClassVar[list[str]] = [f"MNIST/raw/{name}" for name, _ in datasets.MNIST.resources]
    checksums: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
    classes = tuple("0123456789")

    def read_split(self, train: bool) -> Labelled:
        """The training or test images as the files have them, checked."""
        prefix = "train" if train else "t10k"
        images = self._read_idx(f"{prefix}-images-idx3-ubyte", dims=3).unsqueeze(1)
        if images.shape[1:] != self.image_shape:
            found = " × ".join(str(side) for side in images.shape[2:])
            raise self.bad_file(f"{prefix}-images-idx3-ubyte", f"holds images of {found} pixels, not 28 × 28")
        labels = self._read_idx(f"{prefix}-labels-idx1-ubyte", dims=1).long()
        self.check_labels(f"{prefix}-labels-idx1-ubyte", images, labels)
        return Labelled(images, labels)

    def _read_idx(self, name: str, dims: int) -> Tensor:
        """The array of an IDX file: two zero bytes, type, rank, sizes (big-endian), then the values."""
        content = self.read_bytes(name)
        magic = bytes([0, 0, 8, dims])  # 8: unsigned bytes
        if content[:4] != magic:
            raise self.bad_file(
                name, f"starts with 0x{content[:4].hex()}, not with 0x{magic.hex()} as IDX does"
            )
        header = 4 + 4 * dims
        shape = [int(size) for size in np.frombuffer(content[4:header].ljust(4 * dims, b"\0"), ">u4")]
        expected = header + math.prod(shape)
        if len(content) < header or len(content) != expected:
            raise self.bad_file(name, f"holds {len(content)} bytes where its header announces {expected}")
        return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy())


class FashionMNISTDataModule(MNISTDataModule):
    """Fashion-MNIST: articles of clothing, in MNIST's format and numbers.

    The files are those of ``torchvision.datasets.FashionMNIST``, in ``FashionMNIST/raw`` below ``root``.
    Settings and errors are those of :class:`FilesDataModule`.
    """

    source = datasets.FashionMNIST
    folder = "FashionMNIST/raw"
    archives: ClassVar[list[str]] = [
        f"FashionMNIST/raw/{name}" for name, _ in datasets.FashionMNIST.resources
    ]
    checksums: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }
    classes = tuple(datasets.FashionMNIST.classes)
