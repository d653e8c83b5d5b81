"""Shifts and flips against what they promise and against naive loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_attractors.data.generators import Stream, keyed_generator
from lightning_attractors.data.transforms import add_gaussian, random_flip, random_shift, to_unit_range


def generator(*key: int) -> np.random.Generator:
    return keyed_generator(Stream.BATCH, *key)


def byte_images(count: int = 6, channels: int = 3, height: int = 5, width: int = 7) -> Tensor:
    return torch.from_numpy(
        np.random.default_rng(1).integers(1, 256, (count, channels, height, width), np.uint8)
    )


def test_bytes_become_255ths_exactly() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_unit_range(images).flatten(), torch.arange(256) / 255)


@pytest.mark.parametrize("max_shift", [0, 1, 3])
def test_shift_equals_a_naive_loop(max_shift: int) -> None:
    images = byte_images()
    shifted = random_shift(images, max_shift, generator())
    assert shifted.dtype == torch.uint8
    offsets = range(-max_shift, max_shift + 1)
    for image, result in zip(images, shifted, strict=True):
        candidates = [naive_shift(image, down, right) for down in offsets for right in offsets]
        assert sum(torch.equal(result, candidate) for candidate in candidates) == 1


def naive_shift(image: Tensor, down: int, right: int) -> Tensor:
    result = torch.zeros_like(image)
    _, height, width = image.shape
    for i in range(height):
        for j in range(width):
            if 0 <= i - down < height and 0 <= j - right < width:
                result[:, i, j] = image[:, i - down, j - right]
    return result


def test_every_offset_is_equally_likely() -> None:
    images = torch.zeros(9000, 1, 5, 5)
    images[:, :, 2, 2] = 1
    share = random_shift(images, 1, generator()).mean(dim=(0, 1))[1:4, 1:4]
    assert (share - 1 / 9).abs().max() < 5 * (1 / 9 * 8 / 9 / 9000) ** 0.5


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = byte_images(400)
    flipped = random_flip(images, generator())
    mirrored = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(flipped, images, strict=True)])
    unchanged = torch.tensor([torch.equal(a, b) for a, b in zip(flipped, images, strict=True)])
    assert (mirrored ^ unchanged).all()
    assert 150 < mirrored.sum() < 250


def test_normal_noise_is_of_its_deviation_and_is_not_clipped() -> None:
    images = to_unit_range(byte_images(40, 1, 28, 28))
    before = images.clone()
    noise = add_gaussian(images, 0.25, generator(0)) - images
    assert torch.equal(images, before)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(0.25, rel=0.02)
    assert noise.dtype == torch.float32
    assert (images + noise).min() < 0 < 1 < (images + noise).max()
    assert add_gaussian(images, 0.0, generator(0)) is images
