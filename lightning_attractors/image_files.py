"""Image files, of whatever size and mode, as bytes of one shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional

from lightning_attractors.errors import SettingError, one_line

_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def read_image(path: str | Path, image_shape: tuple[int, int, int]) -> Tensor:
    """The image of a file, as :func:`image_bytes` makes one of it.

    Args:
        path: a file in any format that Pillow reads.
        image_shape: (C, H, W), C being 1 for grey or 3 for red, green and blue.

    Returns:
        (C, H, W), uint8.

    Raises:
        SettingError: naming the file, if it is no image that can be read.
    """
    try:
        with Image.open(path) as picture:
            return image_bytes(picture, image_shape)
    except Exception as error:  # a damaged file can raise anything
        raise _unreadable(path, error) from error


def oddity_of(path: str | Path) -> str:
    """What of an image file cannot be kept, as a phrase, by its header; empty where there is nothing.

    Raises:
        SettingError: naming the file, if it is no image.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode in _SIXTEEN_BITS:
                return "16 bits, of which the upper 8 are kept"
            return "transparent parts, which count as white" if _has_alpha(picture) else ""
    except Exception as error:  # a damaged file can raise anything
        raise _unreadable(path, error) from error


def image_bytes(picture: Image.Image, image_shape: tuple[int, int, int]) -> Tensor:
    """A picture as bytes of one shape: turned as its camera says, cut to the shape's middle part, resized.

    What is transparent counts as white; of 16 bits the upper 8 are kept; colours become grey, or grey the
    same in all three channels, as the shape says.

    Args:
        picture: of any size and mode, but for pixels in floating point.
        image_shape: (C, H, W), C being 1 or 3.

    Returns:
        (C, H, W), uint8.

    Raises:
        ValueError: if the pixels are no bytes and no numbers from 0 to 65535.
    """
    channels, height, width = image_shape
    picture = _eight_bits(ImageOps.exif_transpose(picture))
    if _has_alpha(picture):
        page = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(page, picture.convert("RGBA"))
    pixels = functional.pil_to_tensor(picture.convert("L" if channels == 1 else "RGB"))
    rows, columns = pixels.shape[1:]
    if (rows, columns) == (height, width):
        return pixels
    part = [min(rows, round(columns * height / width)), min(columns, round(rows * width / height))]
    middle = functional.center_crop(pixels, [max(1, side) for side in part])
    return functional.resize(middle, [height, width], antialias=True)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """The same picture with at most 8 bits per channel."""
    if picture.mode == "F":
        raise ValueError("its pixels are in floating point")
    if picture.mode not in _SIXTEEN_BITS:
        return picture
    levels = np.asarray(picture)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("its pixels have more than 16 bits")
    return Image.fromarray((levels >> 8).astype(np.uint8))


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in _ALPHA or "transparency" in picture.info


def _unreadable(path: str | Path, error: Exception) -> SettingError:
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "it is in no format of images" if unknown else one_line(error)
    return SettingError("image", str(path), f"must be an image that can be read ({reason})")
