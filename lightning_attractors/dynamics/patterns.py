"""Attractor patterns: which image stands for which class."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attractors.errors import require


def block_patterns(
    num_classes: int, num_nodes: int, low: float, high: float, block: int | None = None
) -> Tensor:
    """One block of consecutive pixels per class, in a sea of the other value.

    Class k has the pixels ``k * block ... (k + 1) * block - 1`` at ``high`` and all others at ``low``;
    blocks do not overlap (Marino et al., 2024, figure 2).

    Args:
        num_classes: number of classes K, at least 1.
        num_nodes: number of nodes N.
        low: value of the sea.
        high: value of the block.
        block: pixels per block; by default as many as fit, ``N // K`` (one less where two would fill N).

    Returns:
        Patterns of shape (K, N), float32.

    Raises:
        SettingError: if K blocks do not fit into N nodes, or a block would be empty.

    Example:
        >>> block_patterns(2, 5, low=-0.5, high=0.5)
        tensor([[ 0.5000,  0.5000, -0.5000, -0.5000, -0.5000],
                [-0.5000, -0.5000,  0.5000,  0.5000, -0.5000]])
    """
    require(num_classes >= 1, "num_classes", num_classes, "must be at least 1")
    require(
        num_classes <= num_nodes,
        "num_classes",
        num_classes,
        f"must not exceed the number of nodes, {num_nodes}: every class needs a pixel of its own",
    )
    # Two blocks that fill everything would be each other's negative, and so not independent.
    largest = (num_nodes - 1) // 2 if num_classes == 2 else num_nodes // num_classes
    block = largest if block is None else block
    require(
        1 <= block <= largest,
        "block",
        block,
        f"{num_classes} blocks must fit into {num_nodes} nodes, so from 1 to {largest}",
    )
    patterns = torch.full((num_classes, num_nodes), low)
    for k in range(num_classes):
        patterns[k, k * block : (k + 1) * block] = high
    return patterns
