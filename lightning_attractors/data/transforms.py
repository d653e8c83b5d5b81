"""Augmentations of whole batches of images, each with a generator of its own.

Tensors go in and come out, NumPy does the work in between: on arrays this small one thread is faster than
waking several, and stays so when other processes keep the cores busy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor


def to_unit_range(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]: bytes are divided by 255, floats pass unchanged.

    Args:
        images: (B, C, H, W), uint8 in 0..255 or float32 in [0, 1], on the CPU.

    Returns:
        (B, C, H, W), float32.
    """
    if images.dtype != torch.uint8:
        return images
    return torch.from_numpy(images.numpy().astype(np.float32) / 255)


def random_shift(images: Tensor, max_shift: int, generator: np.random.Generator) -> Tensor:
    """Translate every image by its own random offset, shifting zeros in.

    The offset is uniform on the integers of [-max_shift, max_shift]², rows and columns independently.

    Args:
        images: (B, C, H, W), any dtype, on the CPU; not modified.
        max_shift: the largest offset, in pixels, at least 0.
        generator: where the offsets come from.

    Returns:
        (B, C, H, W), of the same dtype.
    """
    if max_shift == 0:
        return images
    batch, _, height, width = images.shape
    rows, columns = generator.integers(2 * max_shift + 1, size=(2, batch))
    border = (max_shift, max_shift)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), border, border))
    # every window of the padded image is one offset; the view costs nothing until one is picked
    windows = sliding_window_view(padded, (height, width), axis=(2, 3))
    return torch.from_numpy(windows[np.arange(batch), :, rows, columns])


def random_flip(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Mirror every image left to right with probability ½.

    Args:
        images: (B, C, H, W), any dtype, on the CPU; not modified.
        generator: where the choices come from.

    Returns:
        (B, C, H, W), of the same dtype.
    """
    mirrored = generator.random((len(images), 1, 1, 1)) < 0.5
    array = images.numpy()
    return torch.from_numpy(np.where(mirrored, array[..., ::-1], array))


def transformed(
    images: Tensor, transform: Callable[[Tensor], Tensor], generator: np.random.Generator
) -> Tensor:
    """Every image changed by a transform that draws from torch's own generator, as those of torchvision do.

    That generator is seeded for the batch, and is afterwards what it was before.

    Args:
        images: (B, C, H, W), any dtype, on the CPU; not modified.
        transform: takes an image (C, H, W) to another of its shape.
        generator: where the seed comes from.

    Returns:
        (B, C, H, W), of the dtype that the transform gives.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int(generator.integers(2**63)))
    try:
        return torch.stack([transform(image) for image in images])
    finally:
        torch.set_rng_state(before)


def add_gaussian(images: Tensor, deviation: float, generator: np.random.Generator) -> Tensor:
    """Add independent normal noise to every pixel, and clip nothing: images leave [0, 1].

    Args:
        images: (B, C, H, W), float32, on the CPU; not modified.
        deviation: σ, the standard deviation of the noise, at least 0.
        generator: where the noise comes from.

    Returns:
        (B, C, H, W), float32.
    """
    if deviation == 0:
        return images
    noise = generator.standard_normal(images.shape, np.float32)
    return torch.from_numpy(images.numpy() + np.float32(deviation) * noise)
