"""Attractor patterns in the digits of an alphabet: made here, or drawn by the user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lightning_attractors.dynamics.planted import block_patterns, random_patterns
from lightning_attractors.errors import SettingError, require

Patterns = Literal["random", "blocks"] | list[str] | Tensor


def pattern_digits(
    patterns: Patterns,
    num_classes: int,
    num_nodes: int,
    picture_shape: tuple[int, int, int] | None,
    alphabet_size: int,
    zero: int,
    block: int | None,
) -> Tensor:
    """The patterns of all classes, each node a digit: the place of its value in the ascending alphabet.

    Args:
        patterns: ``random`` or ``blocks`` of the largest value in a sea of 0; or one image file per class,
            whose gray levels are the digits, evenly spread from black to white; or the digits of K patterns.
        num_classes: number of classes K.
        num_nodes: number of nodes N.
        picture_shape: (C, H, W) of the images whose pixels the nodes are; None where they are no pixels.
        alphabet_size: number of values, at least 2.
        zero: the digit of the value 0.
        block: nodes per block, for ``blocks``.

    Returns:
        Digits of shape (K, N), int64, from 0 to ``alphabet_size − 1``.

    Raises:
        SettingError: if the patterns have the wrong size or number, lie outside the alphabet or coincide.
    """
    top = alphabet_size - 1
    has_blocks = isinstance(patterns, str) and patterns == "blocks"
    require(block is None or has_blocks, "block", block, "must be left out, but for patterns=blocks")
    if isinstance(patterns, str):
        require(patterns in ("random", "blocks"), "patterns", patterns, "must be random, blocks or files")
        if patterns == "random":
            digits = random_patterns(num_classes, num_nodes, zero, top)
        else:
            digits = block_patterns(num_classes, num_nodes, zero, top, block)
    else:
        digits = _given_digits(patterns, num_classes, num_nodes, picture_shape, top)
    digits = digits.long()
    _require_distinct(digits, zero)
    return digits


def _given_digits(
    patterns: list[str] | Tensor,
    num_classes: int,
    num_nodes: int,
    picture_shape: tuple[int, int, int] | None,
    top: int,
) -> Tensor:
    given = len(patterns)
    require(given == num_classes, "patterns", f"{given} patterns", f"must be {num_classes}, one per class")
    if isinstance(patterns, Tensor):
        digits = patterns
    elif picture_shape is None:
        valid = "must be random, blocks or a tensor: behind a backbone or an embedding nodes are no pixels"
        raise SettingError("patterns", f"{given} files", valid)
    else:
        digits = _read_images(patterns, picture_shape, top)
    digits = digits.reshape(num_classes, -1)
    require(
        digits.shape[1] == num_nodes,
        "patterns",
        f"{digits.shape[1]} nodes",
        f"must have {num_nodes}, as the model has",
    )
    outside = (digits != digits.round()) | (digits < 0) | (digits > top)
    require(
        not bool(outside.any()),
        "patterns",
        digits[outside][:1].tolist(),
        f"must be digits from 0 to {top}, places in the alphabet of {top + 1} fixed points",
    )
    return digits


def _require_distinct(digits: Tensor, zero: int) -> None:
    for k, pattern in enumerate(digits):
        require(bool((pattern != zero).any()), "patterns", f"class {k}", "must not be 0 everywhere")
        same = (digits[:k] == pattern).all(dim=1).nonzero().flatten().tolist()
        require(not same, "patterns", f"classes {[*same, k]}", "must not have the same attractor")


def _read_images(paths: Sequence[str | Path], image_shape: tuple[int, int, int], top: int) -> Tensor:
    return torch.stack([_read_image(Path(path), image_shape, top) for path in paths])


def _read_image(path: Path, image_shape: tuple[int, int, int], top: int) -> Tensor:
    """Digits (C, H, W) of one image; gray levels a step beside a digit's own count as that digit."""
    channels, height, width = image_shape
    try:
        picture = Image.open(path).convert("L" if channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise SettingError("patterns", str(path), "must be an image file that can be read") from error
    fits = picture.size == (width, height) and channels in (1, 3)
    require(fits, "patterns", f"{path} of {picture.size}", f"must have width and height {(width, height)}")
    levels = torch.from_numpy(np.asarray(picture).reshape(height, width, channels).astype(np.float64))
    digits = levels.permute(2, 0, 1) / 255 * top
    strays = (digits - digits.round()).abs() * 255 / top > 1
    valid = [round(255 * digit / top) for digit in range(top + 1)]
    require(
        not bool(strays.any()),
        "patterns",
        f"{path} with gray level {int(levels.permute(2, 0, 1)[strays][0]) if strays.any() else 0}",
        f"must have the gray levels {valid}, the alphabet from its least to its largest value",
    )
    return digits.round()
