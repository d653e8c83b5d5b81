"""What the data modules share: checks, splits held in memory, and loaders."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypedDict

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lightning_attractors.contracts import phases_of
from lightning_attractors.data.dataset import InMemoryDataset, UnreadImages
from lightning_attractors.data.generators import Stream, keyed_generator
from lightning_attractors.data.loader import EvaluationLoader, ResumableLoader
from lightning_attractors.data.sampler import EpochRandomSampler
from lightning_attractors.data.transforms import to_unit_range
from lightning_attractors.errors import SettingError, one_line, require
from lightning_attractors.robustness import replace_pixels


class Labelled(NamedTuple):
    """Images (n, C, H, W), uint8 in 0..255, or what reads them when asked; and their labels (n,), int64."""

    images: Tensor | UnreadImages
    labels: Tensor


class ImageSettings(TypedDict, total=False):
    """Settings of :class:`InMemoryDataModule`, which describes them and has their defaults."""

    batch_size: int
    eval_batch_size: int
    noise_train: float
    noise_test: float
    max_shift: int
    flip: bool
    gaussian_noise: float
    seed: int
    transforms: list[nn.Module] | None


class InMemoryDataModule(L.LightningDataModule):
    """Base of the data modules: three splits in memory, served as whole batches.

    Training noise, shifts and flips are fresh in every epoch. Validation and test noise is drawn once, in
    ``setup``, from a generator keyed by the seed and the split, so it depends neither on the batch size nor
    on the number of devices. Validation images carry the *training* noise level, so that a checkpoint is
    chosen on the distribution that was trained for; test images carry ``noise_test``. Only training images
    are shifted or flipped. Of several processes each evaluates a share, so that every image counts once.
    A batch is ``(images, labels)``: float32 of shape (B, C, H, W), in [0, 1] but for ``gaussian_noise``, and
    int64 of shape (B,).

    A subclass sets ``image_shape`` on the class, sets ``num_classes`` and ``class_names`` there or in its
    constructor, and writes :meth:`load_splits`.

    Args:
        batch_size: training images per batch and process, at least 1.
        eval_batch_size: validation, test or prediction images per batch and process, at least 1.
        noise_train: fraction of pixels replaced by U(0, 1) in training and validation images, from 0 to 1.
        noise_test: the same for test images.
        max_shift: training images are shifted by up to this many pixels, at least 0 and below the image size.
        flip: whether training images are mirrored left to right with probability ½.
        gaussian_noise: standard deviation of normal noise that is added to training images alone, which then
            leave [0, 1]; at least 0.
        seed: seed of noise, shifts, flips and training order, and of transforms; at least 0.
        transforms: change training images further, one by one, after shifts and flips: modules such as those
            of ``torchvision.transforms.v2`` that take bytes (C, H, W) to as many, or to numbers in [0, 1].

    Attributes:
        num_classes: K, the number of classes.
        image_shape: (C, H, W).
        class_names: K names, in the order of the labels.
        datasets: after ``setup``, the ``InMemoryDataset`` of each of ``train``, ``val`` and ``test``.

    Raises:
        SettingError: when a setting is out of range.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    class_names: list[str]

    def __init__(
        self,
        batch_size: int = 250,
        eval_batch_size: int = 1000,
        noise_train: float = 0.0,
        noise_test: float = 0.0,
        max_shift: int = 0,
        flip: bool = False,
        gaussian_noise: float = 0.0,
        seed: int = 0,
        transforms: list[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        require(batch_size >= 1, "batch_size", batch_size, "must be at least 1")
        require(eval_batch_size >= 1, "eval_batch_size", eval_batch_size, "must be at least 1")
        require(0 <= noise_train <= 1, "noise_train", noise_train, "must be from 0 to 1")
        require(0 <= noise_test <= 1, "noise_test", noise_test, "must be from 0 to 1")
        side = min(self.image_shape[1:])
        require(0 <= max_shift < side, "max_shift", max_shift, f"must be from 0 to {side - 1} pixels")
        fits = 0 <= gaussian_noise < math.inf
        require(fits, "gaussian_noise", gaussian_noise, "must be finite and at least 0")
        require(seed >= 0, "seed", seed, "must be at least 0")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.noise_train = noise_train
        self.noise_test = noise_test
        self.max_shift = max_shift
        self.flip = flip
        self.gaussian_noise = gaussian_noise
        self.seed = seed
        self.transforms = transforms
        self.num_workers = 0  # what is in memory needs none
        self.datasets: dict[str, InMemoryDataset] = {}

    def load_splits(self) -> tuple[Labelled, Labelled, Labelled]:
        """The clean training, validation and test images, all of ``image_shape``; called once."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Load all three splits, whatever the stage: a bad test file is better found before training."""
        if self.datasets:
            return
        train, val, test = self.load_splits()
        for name, split in (("train", train), ("val", val), ("test", test)):
            self._check(name, split)
        self.datasets = {
            "train": InMemoryDataset(
                *train,
                noise=self.noise_train,
                max_shift=self.max_shift,
                flip=self.flip,
                gaussian_noise=self.gaussian_noise,
                seed=self.seed,
                epoch=self._current_epoch,
                transform=self._transform(train),
            ),
            "val": self._with_fixed_noise(val, self.noise_train, split=0),
            "test": self._with_fixed_noise(test, self.noise_test, split=1),
        }

    def train_dataloader(self) -> ResumableLoader:
        """Training batches, in an order that is a function of the seed and the epoch."""
        dataset = self.datasets["train"]
        return ResumableLoader(
            self._batches_done,
            dataset=dataset,
            batch_size=self._train_batch_size(),
            sampler=EpochRandomSampler(dataset, self.seed, self._current_epoch),
            **_loader_options(self.num_workers),
        )

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Validation batches, in order, with fixed noise."""
        return self._eval_dataloader(self.datasets["val"])

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Test batches, in order, with fixed noise."""
        return self._eval_dataloader(self.datasets["test"])

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test batches again; of several processes those of this one."""
        return self.predict_loader_of(self.datasets["test"])

    def predict_loader_of(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        """Batches of a data set that gives whole ones, in order; of several processes those of this one."""
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            return self._eval_dataloader(dataset)
        # Lightning's own sampler fails where a process has no image
        ranks = trainer.world_size, trainer.global_rank
        return self._eval_dataloader(dataset, DistributedSampler(dataset, *ranks, shuffle=False))

    def _eval_dataloader(self, dataset: Dataset[Any], sampler: Any = None) -> DataLoader[Any]:
        options = {"batch_size": self.eval_batch_size, **_loader_options(self.num_workers)}
        return EvaluationLoader(dataset, sampler=sampler, **options)

    def _with_fixed_noise(self, data: Labelled, fraction: float, split: int) -> InMemoryDataset:
        if fraction == 0:
            return InMemoryDataset(*data)  # bytes take a quarter of the memory of floats
        if not isinstance(data.images, Tensor):
            valid = "must be 0 for images that are not in memory: noise of validation and test is drawn once"
            raise SettingError("noise_test" if split else "noise_train", fraction, valid)
        generator = keyed_generator(Stream.FIXED_NOISE, self.seed, split)
        return InMemoryDataset(replace_pixels(to_unit_range(data.images), fraction, generator), data.labels)

    def _check(self, name: str, data: Labelled) -> None:
        """Check once what every batch relies on.

        Raises:
            SettingError: if images are not of ``image_shape`` or not in [0, 1], or labels are no classes.
        """
        images, labels = data
        shape, valid = tuple(images.shape), f"must be one label for each, of shape (n, *{self.image_shape})"
        require(shape == (len(labels), *self.image_shape), f"{name} images", shape, valid)
        if not len(labels):
            return
        low, high = (end.item() for end in labels.aminmax())
        valid = f"must be classes from 0 to {self.num_classes - 1}"
        require(low >= 0 and high < self.num_classes, f"{name} labels", [low, high], valid)
        if isinstance(images, Tensor) and images.dtype != torch.uint8:
            low, high = (end.item() for end in images.aminmax())
            require(low >= 0 and high <= 1, f"{name} images", [low, high], "must be bytes, or from 0 to 1")

    def _transform(self, train: Labelled) -> nn.Module | None:
        """The transforms as one, after a trial with the first image.

        Raises:
            SettingError: if they do not take it to another image.
        """
        if not self.transforms:
            return None
        transform = nn.Sequential(*self.transforms)
        names = [type(one).__name__ for one in self.transforms]
        valid = f"must take images of bytes of shape {self.image_shape} to others, or to numbers in [0, 1]"
        try:
            images, _ = InMemoryDataset(*train, transform=transform)[0]
        except Exception as error:  # whatever they raise, they do not
            raise SettingError("transforms", names, f"{valid} ({one_line(error)})") from error
        found = tuple(images.shape)
        require(found == self.image_shape, "transforms", names, f"{valid}, not of shape {found}")
        low, high = (round(end.item(), 3) for end in images.aminmax())
        require(0 <= low <= high <= 1, "transforms", names, f"{valid}, not from {low} to {high}")
        return transform

    def _train_batch_size(self) -> int:
        # a trainer with phases has a say of its own
        phases = phases_of(self.trainer)
        return (phases and phases.train_batch_size) or self.batch_size

    def _current_epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    def _batches_done(self) -> int:
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0


def _already_collated(batch: Any) -> Any:
    return batch


def _loader_options(num_workers: int) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "collate_fn": _already_collated,
        "pin_memory": torch.cuda.is_available(),
        # a loader without a generator takes a number from the global one, to seed workers that need no seed
        "generator": torch.Generator(),
    }
