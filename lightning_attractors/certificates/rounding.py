"""How far the float32 evaluation of a layer can be from exact arithmetic with the same float32 weights.

A sum of n products, in whatever order and with or without fused multiply-add, is off by at most
γ_n Σ|w_k||x_k| with γ_n = nu/(1 − nu) and u = 2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms,
§3.1). Here Σ|w_k||x_k| ≤ ‖w‖₁ max|x|, which costs no product: like moving the inputs by γ_n max|x|, or 5e-5
for the 784 pixels of an MNIST image.

n counts a few operations more than there are. One of them, 2⁻²⁴ of the whole, covers the rounding of the
float64 in which the certificate itself is computed, which is less than n 2⁻⁵² of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNIT = 2.0**-24

# FlowMap in float32: Y at an argument off by this share of it (its reduction to one period), and the rest.
# No measurement needs the share: on the CPU all of the error was at most 3.3e-7, up to |γ| = 1e7 and for
# three flows of gain up to 2. It is a margin, for devices that round the products of the reduction.
FLOW_ARGUMENT_ERROR = 4 * UNIT
FLOW_VALUE_ERROR = 1e-6

# Operations beyond the products: the bias, its addition, and the margin for float64.
_EXTRA = 3
# Products below the smallest normal number of float32 lose more than u, but less than this in sum.
UNDERFLOW = 1e-30
# Where all terms of a sum are below this, nothing overflows. No error is promised of what is above.
LARGEST = 1e30
# The largest distance for which anything is promised.
FARTHEST = 1e6
# Smaller numbers may count as 0: see torch.set_flush_denormal.
_SMALLEST_NORMAL = 2.0**-126


def accumulated(operations: int) -> float:
    """γ_n for n operations and a few more; infinite where float32 sums that long say nothing."""
    share = (operations + _EXTRA) * UNIT
    return share / (1 - share) if share < 1 else float("inf")


def rounding_error(sizes: Tensor, operations: int) -> Tensor:
    """Bound of what so many float32 operations on numbers of these sizes, or sums of them, are off by.

    Infinite where they are so large that float32 may overflow.

    Args:
        sizes: Σ|terms| of every output, any shape, float64.
        operations: how many operations each term passes: n for a sum of n products.

    Returns:
        Of the shape of ``sizes``.
    """
    return (accumulated(operations) * sizes + UNDERFLOW).masked_fill(~(sizes <= LARGEST), float("inf"))


def affine_error(weight: Tensor, bias: Tensor | None, largest: Tensor) -> Tensor:
    """Bound of the error of each output of a linear or convolutional layer.

    Args:
        weight: shape (F, ...): one output's weights for each of F outputs or channels.
        bias: shape (F,), or None.
        largest: max|x| over the inputs, a shape (..., 1) that broadcasts against (F,).

    Returns:
        Shape (..., F).
    """
    rows, terms = weight.abs().flatten(1), weight[0].numel()
    sizes = largest * rows.sum(dim=1)
    total = sizes if bias is None else sizes + bias.abs()
    lost = terms * _SMALLEST_NORMAL * (largest + rows.amax(dim=1))
    return rounding_error(total, terms) + lost


def largest_size(lower: Tensor, upper: Tensor) -> Tensor:
    """max(|lower|, |upper|), elementwise: the largest |x| of an interval."""
    return torch.maximum(lower.abs(), upper.abs())
