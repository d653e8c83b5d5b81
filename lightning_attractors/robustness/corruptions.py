"""Corruptions of whole batches of images, each of one strength and with a generator of its own.

First those that draw every pixel anew, then changes that images meet without an attacker: noise, blur, a
loss of resolution, another brightness. Each of these is the identity at strength 0, and takes images from
[0, 1] to [0, 1]. Luo, He and Yi (2024) measure by them; their strengths of blur and resizing are the sizes of
the window and of the small image.

Tensors go in and come out, on the CPU; NumPy does the work in between: on arrays this small one thread is
faster than waking several, and stays so when other processes keep the cores busy.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from lightning_attractors.errors import require

# Images, strength and generator, by that name, and whatever else it may be set to.
Corruption = Callable[..., Tensor]


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


def gaussian_noise(images: Tensor, deviation: float, generator: np.random.Generator) -> Tensor:
    """Add N(0, deviation²) to every pixel and channel on its own, and clip the sum to [0, 1].

    Args:
        images: (B, C, H, W), float32 in [0, 1], on the CPU; not modified.
        deviation: standard deviation of the noise before it is clipped, at least 0.
        generator: where the noise comes from.

    Returns:
        (B, C, H, W), float32 in [0, 1].

    Raises:
        SettingError: if ``deviation`` is negative.
    """
    require(deviation >= 0, "deviation", deviation, "must be at least 0")
    if deviation == 0:
        return images
    noise = generator.standard_normal(tuple(images.shape), dtype=np.float32)
    return torch.from_numpy(noise).mul_(deviation).add_(images).clamp_(0, 1)


def gaussian_blur(images: Tensor, deviation: float, generator: np.random.Generator) -> Tensor:
    """Average every channel under a Gaussian window, with the image mirrored at its borders.

    The window reaches three standard deviations to every side, or as far as one reflection reaches: the side
    of the image less one. Clipping to [0, 1] takes away rounding only.

    Args:
        images: (B, C, H, W), float32 in [0, 1]; not modified.
        deviation: standard deviation of the window in pixels, at least 0.
        generator: not used, for nothing here is random.

    Returns:
        (B, C, H, W), float32 in [0, 1].

    Raises:
        SettingError: if ``deviation`` is negative.
    """
    require(deviation >= 0, "deviation", deviation, "must be at least 0")
    if deviation < 0.01 or len(images) == 0:  # below it the weight e^(−1/2σ²) of a neighbour is 0
        return images
    height, width = images.shape[-2:]
    # torchvision takes the width first
    window = [2 * min(math.ceil(3 * deviation), side - 1) + 1 for side in (width, height)]
    return functional.gaussian_blur(images, window, [deviation, deviation]).clamp_(0, 1)


def resize(images: Tensor, loss: float, generator: np.random.Generator) -> Tensor:
    """Shrink the images and enlarge them again to their size, both bilinearly, the former with antialiasing.

    The sides of the small image are ``round((1 - loss) * H)`` and the same of W, at least one pixel each.
    Clipping to [0, 1] takes away rounding only.

    Args:
        images: (B, C, H, W), float32 in [0, 1]; not modified.
        loss: share of each side that is lost, from 0 to 1.
        generator: not used, for nothing here is random.

    Returns:
        (B, C, H, W), float32 in [0, 1].

    Raises:
        SettingError: if ``loss`` lies outside its range.
    """
    require(0 <= loss <= 1, "loss", loss, "must be from 0 to 1")
    size = list(images.shape[-2:])
    small = [max(1, round((1 - loss) * side)) for side in size]
    if small == size or len(images) == 0:
        return images
    shrunk = functional.resize(images, small, antialias=True)
    return functional.resize(shrunk, size, antialias=True).clamp_(0, 1)


def brightness(images: Tensor, shift: float, generator: np.random.Generator) -> Tensor:
    """Add one number to all pixels, and clip the sum to [0, 1].

    A sum, not a product, so that a black background does not stay black.

    Args:
        images: (B, C, H, W), float32 in [0, 1]; not modified.
        shift: from −1, all black, to 1, all white.
        generator: not used, for nothing here is random.

    Returns:
        (B, C, H, W), float32 in [0, 1].

    Raises:
        SettingError: if ``shift`` lies outside its range.
    """
    require(-1 <= shift <= 1, "shift", shift, "must be from -1 to 1")
    return (images + shift).clamp_(0, 1) if shift else images


CORRUPTIONS: dict[str, Corruption] = {
    "replace_pixels": replace_pixels,
    "add_uniform": add_uniform,
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": gaussian_blur,
    "resize": resize,
    "brightness": brightness,
}
