"""Pictures that are read from elsewhere: into memory where they fit, else by workers, batch by batch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from lightning_attractors.data.base import ImageSettings, InMemoryDataModule, Labelled
from lightning_attractors.data.generators import Stream, keyed_generator
from lightning_attractors.data.transforms import to_unit_range
from lightning_attractors.errors import require
from lightning_attractors.keywords import Unpack
from lightning_attractors.process import physical_memory

_SHARE_OF_MEMORY = 0.25
_MOST_WORKERS = 8
_FEW_STEPS, _GOOD_STEPS = 4, 5
_USES = {"train": "train on", "val": "validate on", "test": "test on"}


class PictureSettings(ImageSettings, total=False):
    """Settings of :class:`PictureDataModule`, which describes them and has their defaults."""

    val_share: float
    test_share: float
    split_seed: int
    in_memory: bool | None
    num_workers: int | None


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures that have not been read.

    Attributes:
        read_one: gives the picture of an item, bytes (C, H, W).
        items: what the pictures are read from, such as paths or indices, shape (n,).
        labels: their labels, shape (n,), int64.
        image_shape: (C, H, W).
    """

    read_one: Callable[[Any], Tensor]
    items: np.ndarray
    labels: np.ndarray
    image_shape: tuple[int, int, int]
    dtype = torch.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, C, H, W)."""
        return (len(self.items), *self.image_shape)

    def part(self, chosen: np.ndarray) -> Pictures:
        """The pictures of some positions."""
        return Pictures(self.read_one, self.items[chosen], self.labels[chosen], self.image_shape)

    def in_turn(self) -> Pictures:
        """The pictures of all classes in turn, so that the first ones are of every class."""
        places = np.zeros_like(self.labels)
        for k in np.unique(self.labels):
            places[self.labels == k] = np.arange(np.count_nonzero(self.labels == k))
        return self.part(np.lexsort((self.labels, places)))

    def read(self, positions: np.ndarray) -> Tensor:
        """The pictures (B, C, H, W) of B positions."""
        return self._stacked(map(self.read_one, self.items[positions].tolist()))

    def all(self) -> Tensor:
        """All pictures (n, C, H, W), read by as many threads as there are processors."""
        with ThreadPoolExecutor(_processors()) as threads:
            return self._stacked(threads.map(self.read_one, self.items.tolist()))

    def _stacked(self, pictures: Iterable[Tensor]) -> Tensor:
        stacked = torch.empty(0, *self.image_shape, dtype=self.dtype)
        return torch.stack(found) if (found := list(pictures)) else stacked


class UnlabelledPictures(Dataset[Tensor]):
    """Pictures whose classes nobody knows, in whole batches: images (B, C, H, W), float32 in [0, 1].

    Args:
        pictures: the pictures, whose labels mean nothing.
        files: where each is from.
    """

    def __init__(self, pictures: Pictures, files: list[str]) -> None:
        self.pictures, self.files = pictures, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        """A whole batch."""
        return to_unit_range(self.pictures.read(np.asarray(indices)))


class PictureDataModule(InMemoryDataModule):
    """Base of the data modules whose images are read one by one.

    Splits that there are not are taken from the training images: of every class the same share, and at least
    one image, by permutations that ``split_seed`` decides.

    A subclass sets ``image_shape``, ``num_classes`` and ``class_names`` and writes :meth:`find_splits`.

    Args:
        val_share: share of the training images that is validated on, where there is no validation split; at
            least 0, which means that there is no validation, and below 1.
        test_share: the same of the test images, above 0 and below 1.
        split_seed: seed of these splits, at least 0.
        in_memory: whether all images are held in memory, as bytes; by default where they take at most a
            quarter of it.
        num_workers: processes that read images which are not in memory, at least 0; by default one for every
            processor, up to 8.
        **images: the settings of :class:`~lightning_attractors.data.InMemoryDataModule`.

    Attributes:
        splits: after ``setup``, the :class:`Pictures` of each of ``train``, ``val`` and ``test``.

    Raises:
        SettingError: when a setting is out of range; in ``setup``, if a class has too few images.
    """

    splits: dict[str, Pictures]

    def __init__(
        self,
        val_share: float = 0.1,
        test_share: float = 0.2,
        split_seed: int = 0,
        in_memory: bool | None = None,
        num_workers: int | None = None,
        **images: Unpack[ImageSettings],
    ) -> None:
        super().__init__(**images)
        require(0 <= val_share < 1, "val_share", val_share, "must be at least 0 and below 1")
        require(0 < test_share < 1, "test_share", test_share, "must be above 0 and below 1")
        valid = f"must leave images to train on beside test_share, {test_share}"
        require(val_share + test_share < 1, "val_share", val_share, valid)
        require(split_seed >= 0, "split_seed", split_seed, "must be at least 0")
        valid = "must be null or at least 0"
        require(num_workers is None or num_workers >= 0, "num_workers", num_workers, valid)
        self.shares = {"val": val_share, "test": test_share}
        self.split_seed = split_seed
        self.in_memory = in_memory
        self.readers = min(_processors(), _MOST_WORKERS) if num_workers is None else num_workers

    def find_splits(self) -> dict[str, Pictures]:
        """The pictures of ``train`` and, where there are such splits, of ``val`` and ``test``."""
        raise NotImplementedError

    def load_splits(self) -> tuple[Labelled, Labelled, Labelled]:
        self.splits = splits = self.complete(self.find_splits())
        self._tell_sizes({name: len(split.labels) for name, split in splits.items()})
        size = sum(len(split.labels) for split in splits.values()) * int(np.prod(self.image_shape))
        in_memory = self._fits(size) if self.in_memory is None else self.in_memory
        if not in_memory:
            self.num_workers = self.readers
            rank_zero_info(f"images are read batch by batch: all of them are {size / 2**30:.1f} GiB")
        train, val, test = (
            Labelled(split.all() if in_memory else split, torch.from_numpy(split.labels))
            for split in (splits[name] for name in ("train", "val", "test"))
        )
        return train, val, test

    def complete(self, splits: Mapping[str, Pictures]) -> dict[str, Pictures]:
        """All three splits: those that are missing are taken from the training images.

        Raises:
            SettingError: if a class has too few images for that.
        """
        train = splits["train"]
        shares = {name: share for name, share in self.shares.items() if name not in splits}
        parts: dict[str, list[np.ndarray]] = {name: [] for name in (*shares, "train")}
        generator = keyed_generator(Stream.VALIDATION_SPLIT, self.split_seed)
        for k, name in enumerate(self.class_names):
            order = generator.permutation(np.flatnonzero(train.labels == k))
            counts = [max(1, round(share * len(order))) if share else 0 for share in shares.values()]
            found = f"class {name!r} has {len(order)} of its own"
            valid = f"must leave every class an image to train on: {found}"
            require(sum(counts) < len(order), "val_share, test_share", [*self.shares.values()], valid)
            for part, chosen in zip(parts, np.split(order, np.cumsum(counts)), strict=True):
                parts[part].append(chosen)
        taken = {
            name: train.part(np.sort(np.concatenate(chosen))).in_turn() for name, chosen in parts.items()
        }
        return {**splits, **taken}

    def _tell_sizes(self, sizes: Mapping[str, int]) -> None:
        """Say how many images there are, and if an epoch is so few batches that little is learnt in it."""
        found = ", ".join(f"{sizes[name]} to {use}" for name, use in _USES.items())
        rank_zero_info(f"{self.num_classes} classes of images: {found}")
        images, size = sizes["train"], self.batch_size * (self.trainer.world_size if self.trainer else 1)
        if (steps := math.ceil(images / size)) < _FEW_STEPS:
            text = f"an epoch of {images} images in batches of {size} has few steps of training ({steps})"
            better = max(1, images // _GOOD_STEPS)
            rank_zero_warn(f"{text}; data.batch_size={better} makes {math.ceil(images / better)}")

    def _fits(self, size: int) -> bool:
        memory = physical_memory()
        processes = self.trainer.num_devices if self.trainer else 1  # each of which has all
        return memory is None or size * processes <= _SHARE_OF_MEMORY * memory


def _processors() -> int:
    return os.cpu_count() or 1
