"""Batches in memory."""

from __future__ import annotations

import numpy as np
import torch
from clocks import Clock

from lightning_attractors.data.dataset import InMemoryDataset


def make_dataset(clock: Clock | None = None, seed: int = 0, **options: float) -> InMemoryDataset:
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 6, 6), np.uint8)
    return InMemoryDataset(
        torch.from_numpy(images), torch.arange(40) % 10, seed=seed, epoch=clock or Clock(), **options
    )


def test_a_clean_batch_is_the_stored_pixels() -> None:
    dataset = make_dataset()
    images, labels = dataset.__getitems__([7, 3, 39])
    assert len(dataset) == 40
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert torch.equal(images, dataset.images[[7, 3, 39]] / 255)
    assert labels.tolist() == [7, 3, 9]


def test_one_image_has_no_batch_dimension() -> None:
    image, label = make_dataset()[5]
    assert image.shape == (1, 6, 6)
    assert label.shape == ()
    assert label == 5


def test_float_images_pass_unchanged() -> None:
    images = torch.rand(4, 1, 2, 2)
    served, _ = InMemoryDataset(images, torch.zeros(4, dtype=torch.int64)).__getitems__([2, 0])
    assert torch.equal(served, images[[2, 0]])


def test_noise_is_a_function_of_seed_epoch_and_first_index() -> None:
    clock = Clock()
    dataset = make_dataset(clock, noise=0.5, max_shift=1, flip=True)
    first = dataset.__getitems__([1, 2, 3])[0]
    assert torch.equal(first, dataset.__getitems__([1, 2, 3])[0])
    clock.now = 1
    assert not torch.equal(first, dataset.__getitems__([1, 2, 3])[0])
    clock.now = 0
    assert torch.equal(first, dataset.__getitems__([1, 2, 3])[0])
    reseeded = make_dataset(clock, seed=1, noise=0.5, max_shift=1, flip=True)
    assert not torch.equal(first, reseeded.__getitems__([1, 2, 3])[0])


def test_batches_draw_from_distinct_streams() -> None:
    dataset = make_dataset(noise=1.0)
    assert not torch.equal(dataset.__getitems__([0, 1])[0], dataset.__getitems__([1, 0])[0])


def test_noise_comes_after_the_shift_and_in_the_right_amount() -> None:
    dataset = InMemoryDataset(
        torch.full((30, 1, 6, 6), 255, dtype=torch.uint8), torch.zeros(30).long(), noise=0.5, max_shift=2
    )
    images, _ = dataset.__getitems__(range(30))
    touched = (images != 0) & (images != 1)
    assert (touched.sum(dim=(1, 2, 3)) == 18).all()


def test_the_stored_images_are_never_changed() -> None:
    dataset = make_dataset(noise=0.9, max_shift=2, flip=True)
    before = dataset.images.clone()
    dataset.__getitems__(range(40))
    assert torch.equal(dataset.images, before)
