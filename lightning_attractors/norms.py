"""The norms in which certificates and attacks measure how far an image was moved."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

NormName = Literal["linf", "l2"]
# How they are written in plots and messages.
NORMS: dict[NormName, str] = {"linf": "L∞", "l2": "L2"}
_ORDERS: dict[NormName, float] = {"linf": math.inf, "l2": 2.0}


def distances(changed: Tensor, images: Tensor, norm: NormName) -> Tensor:
    """‖x′ − x‖ of every image, as they are and not as they were meant, computed in float64.

    Args:
        changed: x′, shape (B, ...).
        images: x, the same shape.
        norm: ``linf`` or ``l2``, of all pixels of an image together.

    Returns:
        Shape (B,), float64.

    Example:
        >>> distances(torch.tensor([[0.3, 0.4]]), torch.zeros(1, 2), "l2")
        tensor([0.5000], dtype=torch.float64)
    """
    difference = (changed.double() - images.double()).flatten(1)
    return torch.linalg.vector_norm(difference, ord=_ORDERS[norm], dim=1)
