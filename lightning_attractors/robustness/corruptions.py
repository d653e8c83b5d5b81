"""Corruptions of whole batches of images, each of one strength and with a generator of its own.

Here are those that draw every pixel anew; the ones that photographs suffer are in ``natural``.

Tensors go in and come out, on the CPU; NumPy does the work in between: on arrays this small one thread is
faster than waking several, and stays so when other processes keep the cores busy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lightning_attractors.errors import require
from lightning_attractors.robustness.natural import brightness, gaussian_blur, gaussian_noise, resize

Corruption = Callable[[Tensor, float, np.random.Generator], Tensor]


def replace_pixels(images: Tensor, fraction: float, generator: np.random.Generator) -> Tensor:
    """Replace a fraction of the pixels of every image by uniform random values (attack A of CVFR).

    Exactly ``round(fraction * H * W)`` positions are drawn per image, all sets of that size being equally
    likely; at a drawn position every channel gets its own U(0, 1) value.

    Args:
        images: (B, C, H, W), float32 in [0, 1], on the CPU; not modified.
        fraction: from 0 to 1.
        generator: where the positions and values come from.

    Returns:
        (B, C, H, W), float32 in [0, 1].

    Raises:
        SettingError: if ``fraction`` lies outside its range.
    """
    require(0 <= fraction <= 1, "fraction", fraction, "must be from 0 to 1")
    batch, channels, height, width = images.shape
    count = round(fraction * height * width)
    if count == 0:
        return images
    # The places of the smallest of independent keys are a uniform choice of that many places; sorting them
    # makes the outcome independent of how this processor partitions
    keys = generator.random((batch, height * width), dtype=np.float32)
    places = np.sort(np.argpartition(keys, count - 1, axis=1)[:, :count], axis=1)
    values = generator.random((batch, channels, count), dtype=np.float32)
    pixels = images.numpy().reshape(batch, channels, height * width).copy()
    np.put_along_axis(pixels, places[:, np.newaxis], values, axis=2)
    return torch.from_numpy(pixels).view(images.shape)


def add_uniform(images: Tensor, width: float, generator: np.random.Generator) -> Tensor:
    """Add U(−width, width) to every pixel and channel on its own (attack B of CVFR); not clipped.

    Args:
        images: (B, C, H, W), float32, on the CPU; not modified.
        width: at least 0.
        generator: where the values come from.

    Returns:
        (B, C, H, W), float32 in [−width, 1 + width] where the images lie in [0, 1].

    Raises:
        SettingError: if ``width`` is negative.
    """
    require(width >= 0, "width", width, "must be at least 0")
    values = generator.random(tuple(images.shape), dtype=np.float32)
    return images + torch.from_numpy((2 * values - 1) * np.float32(width))


CORRUPTIONS: dict[str, Corruption] = {
    "replace_pixels": replace_pixels,
    "add_uniform": add_uniform,
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": gaussian_blur,
    "resize": resize,
    "brightness": brightness,
}
