"""Attractor patterns: which image stands for which class."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attractors.errors import require


def random_patterns(num_classes: int, num_nodes: int, low: float, high: float) -> Tensor:
    """Half of the pixels, chosen at random, at ``high``: the memories of a Hopfield network.

    The others are at ``low``. Any two patterns differ in about half of the pixels. The choice depends on the
    two numbers only.

    Args:
        num_classes: number of classes K, at least 1.
        num_nodes: number of nodes N, at least K.
        low: value of one half; the larger one where N is odd.
        high: value of the other half.

    Returns:
        Patterns of shape (K, N), float32.

    Raises:
        SettingError: if there are more classes than nodes.
    """
    _require_nodes(num_classes, num_nodes)
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(num_classes, num_nodes, generator=generator).argsort(dim=1)
    return torch.where(order < num_nodes // 2, high, low)


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
    _require_nodes(num_classes, num_nodes)
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


def _require_nodes(num_classes: int, num_nodes: int) -> None:
    require(num_classes >= 1, "num_classes", num_classes, "must be at least 1")
    require(
        num_classes <= num_nodes,
        "num_classes",
        num_classes,
        f"must not exceed the number of nodes, {num_nodes}: every class needs a direction of its own",
    )
