"""Changes that images meet without an attacker: noise, blur, a loss of resolution, another brightness.

Each is the identity at strength 0, and takes images from [0, 1] to [0, 1]. Luo, He and Yi (2024) measure by
these four; their strengths of blur and resizing are the sizes of the window and of the small image.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from lightning_attractors.errors import require


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
