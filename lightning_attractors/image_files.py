"""Images from files, as models take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from lightning_attractors.errors import SettingError, require

# What Pillow calls 16 bits of grey; with 16 bits of every colour it reads the upper 8.
_DEEP = ("I;16", "I;16B", "I;16L", "I")
_DEEPEST = 2**16 - 1


def read_image(path: str | Path, image_shape: tuple[int, int, int]) -> Tensor:
    """The image in a file, float32 in [0, 1], of the shape (C, H, W) that is asked for.

    An image of another size is resized, without keeping its proportions, with antialiasing; colours become
    grey by their luminance, and grey becomes three equal channels. Images are turned as their EXIF says.

    Args:
        path: a file in any format that Pillow reads, of 8 bits, or 16 bits of grey.
        image_shape: (C, H, W), C being 1 or 3.

    Raises:
        SettingError: naming the file, if it is missing or no image, or some of it is transparent.
    """
    channels, height, width = image_shape
    valid = "must have 1 or 3 channels, for an image file to be read"
    require(channels in (1, 3), "image_shape", tuple(image_shape), valid)
    pixels = _pixels(Path(path))
    if len(pixels) == 1 and channels == 3:
        pixels = pixels.expand(3, -1, -1)
    elif len(pixels) == 3 and channels == 1:
        pixels = torch.einsum("c,chw->hw", torch.tensor([0.299, 0.587, 0.114]), pixels)[None]
    if pixels.shape[1:] != (height, width):
        pixels = resize(pixels, [height, width], antialias=True)
    return pixels.clamp(0, 1)


def _pixels(path: Path) -> Tensor:
    """Pixels (1, H, W) or (3, H, W) of a file, float32 in [0, 1]."""
    require(path.is_file(), "image", str(path), "must be a file that exists")
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
    except UnidentifiedImageError as error:
        raise SettingError("image", str(path), "must be an image that Pillow can read") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        problem = " ".join(str(error).split())
        raise SettingError("image", str(path), f"must be an image that is whole: {problem}") from error
    if image.mode in _DEEP:
        values = torch.from_numpy(np.asarray(image).astype(np.float32)) / _DEEPEST
        low, high = (float(end) for end in values.aminmax())
        require(low >= 0 and high <= 1, "image", str(path), "must have 8 or 16 bits")
        return values[None]
    require(image.mode != "F", "image", str(path), "must have 8 or 16 bits, not floating-point numbers")
    if image.has_transparency_data:
        opaque = image.convert("RGBA").getchannel("A").getextrema() == (255, 255)
        require(opaque, "image", str(path), "must have no transparent pixels: save it on a background")
    grey = image.mode in ("1", "L", "LA")
    values = torch.from_numpy(np.array(image.convert("L" if grey else "RGB"))).float() / 255
    return values[None] if grey else values.permute(2, 0, 1)
