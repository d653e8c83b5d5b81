"""A data set that lives in memory as two tensors and serves whole batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_attractors.data.generators import Stream, keyed_generator
from lightning_attractors.data.transforms import (
    add_gaussian,
    random_flip,
    random_shift,
    to_unit_range,
    transformed,
)
from lightning_attractors.robustness import replace_pixels


class UnreadImages(Protocol):
    """Stands for a tensor (n, C, H, W) of bytes that are read when they are asked for."""

    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, indices: np.ndarray) -> Tensor:
        """The images (B, C, H, W) of B indices, uint8."""
        ...


class InMemoryDataset(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels in memory, with optional random changes that are fresh in every epoch.

    A batch is shifted, then flipped, then transformed image by image, then corrupted, then given normal
    noise. Its random numbers come from a
    generator keyed by the seed, the epoch and the batch's first index. An index appears once in an epoch, so
    batches and ranks draw from distinct streams without sharing any state, and a resumed run repeats an
    uninterrupted one.

    Args:
        images: (n, C, H, W), uint8 in 0..255, or float32 in [0, 1]; or what reads such bytes when asked.
        labels: (n,), int64.
        noise: ε, the fraction of pixels that :func:`replace_pixels` replaces, from 0 to 1.
        max_shift: the largest offset of :func:`random_shift`, in pixels.
        flip: whether :func:`random_flip` is applied.
        gaussian_noise: standard deviation of the noise that :func:`add_gaussian` adds, at least 0.
        seed: seed of the random changes, at least 0.
        epoch: gives the current epoch; ``int`` itself gives 0, for data that do not change.
        transform: changes an image (C, H, W) of the dtype of ``images`` to another of its shape, in bytes or
            in [0, 1], at random by torch's generator.

    Attributes:
        files: of the images, in their order, where each has one.
        features: (n, ...), what is served in place of the images, if a trainer has computed it from them.
    """

    features: Tensor | None = None
    files: list[str] | None = None

    def __init__(
        self,
        images: Tensor | UnreadImages,
        labels: Tensor,
        *,
        noise: float = 0.0,
        max_shift: int = 0,
        flip: bool = False,
        gaussian_noise: float = 0.0,
        seed: int = 0,
        epoch: Callable[[], int] = int,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.noise = noise
        self.max_shift = max_shift
        self.flip = flip
        self.gaussian_noise = gaussian_noise
        self.seed = seed
        self.epoch = epoch
        self.transform = transform

    def __getstate__(self) -> dict[str, Any]:
        # what goes to a worker process, which serves one epoch, and has no use for the trainer
        return {**self.__dict__, "epoch": partial(int, self.epoch())}

    @property
    def is_random(self) -> bool:
        """Whether images change from epoch to epoch."""
        return bool(self.noise or self.max_shift or self.flip or self.gaussian_noise or self.transform)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One image (C, H, W) and its label (), changed as a batch of one would be."""
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A whole batch: images (B, C, H, W), float32, [0, 1] and normal noise, and labels (B,), int64."""
        chosen = np.asarray(indices)
        labels = torch.from_numpy(self.labels.numpy()[chosen])
        if self.features is not None:
            return self.features[torch.from_numpy(chosen)], labels  # NumPy has no bfloat16
        if isinstance(self.images, Tensor):
            images = torch.from_numpy(self.images.numpy()[chosen])
        else:
            images = self.images.read(chosen)
        if not self.is_random:
            return to_unit_range(images), labels
        generator = keyed_generator(Stream.BATCH, self.seed, self.epoch(), int(chosen[0]))
        images = random_shift(images, self.max_shift, generator)
        if self.flip:
            images = random_flip(images, generator)
        if self.transform is not None:
            images = transformed(images, self.transform, generator)
        images = replace_pixels(to_unit_range(images), self.noise, generator)
        return add_gaussian(images, self.gaussian_noise, generator), labels
