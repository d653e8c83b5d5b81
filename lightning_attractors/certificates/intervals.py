"""Interval propagation: bounds on what a network can give for every input of a box.

Used in two ways. In float32 it is quick, and what a network is trained against; its bounds are as good as
float32. In float64 it is a certificate, of the network as it really runs: the bounds hold for every output
that torch can compute **in float32** from float32 inputs in the box, since every layer is widened by the
error that its float32 evaluation can make (:mod:`~lightning_attractors.certificates.rounding`), and for exact
arithmetic with the same weights. Covered are sums of products in any order, on any device, as long as
nothing can overflow; bfloat16, float16, TF32 and convolutions that may not sum products (Winograd, FFT) are
refused. Of a
:class:`~lightning_attractors.dynamics.nmode.FlowMap` in float32 no proof is given: it is taken to be
within 1e-6 of Y, at an argument off by at most 2⁻²² of it, which is tested.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_attractors.certificates.guards import (
    require_plain,
    require_precision,
    require_sums,
    require_unchanged,
)
from lightning_attractors.certificates.rounding import LARGEST, affine_error, largest_size
from lightning_attractors.certificates.rules import INTERVALS, Interval
from lightning_attractors.errors import require


def linf_box(images: Tensor, strength: float | Tensor, bounds: tuple[float, float] | None = None) -> Interval:
    """All images within ``strength`` of each pixel, as their lower and upper ends.

    Args:
        images: shape (B, ...).
        strength: ε, at least 0; one number, or one per image, shape (B,).
        bounds: the values that a pixel can have; every pixel of the images must lie within.

    Raises:
        SettingError: if an image lies outside the bounds.
    """
    if isinstance(strength, Tensor):
        strength = strength.view(-1, *[1] * (images.dim() - 1))
    lower, upper = images - strength, images + strength
    if bounds is None:
        return lower, upper
    low, high = bounds
    inside = bool((images >= low).all() and (images <= high).all())
    require(inside, "bounds", bounds, "must hold every pixel of the images")
    return lower.clamp(min=low), upper.clamp(max=high)


def propagate(module: nn.Module, lower: Tensor, upper: Tensor) -> Interval:
    """Bounds of a module's outputs over all inputs between two ends, differentiable in ends and weights.

    It knows ``Sequential``, ``Flatten``, ``Identity``, ``Linear``, ``Conv2d``, ``BatchNorm2d`` and
    ``Dropout`` in eval mode, ``ReLU``, ``MaxPool2d``, ``AvgPool2d``, ``AdaptiveAvgPool2d``, ``FlowMap``, and
    ``NMODELayer`` where that is a flow map, and what
    :func:`~lightning_attractors.certificates.register_rule` was told of. Weights are used in the precision of
    the ends, outside autocast.

    Args:
        module: what is bounded.
        lower: lower ends, shape (B, ...), float32 to train or float64 to certify.
        upper: upper ends, not below the lower ones, of the same shape.

    Returns:
        Lower and upper bounds, of the shape of the outputs; in float64 nan for an image of which inputs or
        outputs of a layer may be above 1e30, where float32 is about to overflow.

    Raises:
        SettingError: naming the type of a module that is not known, that hooks may change, or whose mode
            leaves it undetermined; in float64 also if weights are of lower precision than float32, or the
            device takes products in less than that.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, -1.0)
        >>> lower, upper = propagate(layer, torch.zeros(1, 2), torch.ones(1, 2))
        >>> lower.item(), upper.item()
        (-2.0, 0.0)
    """
    dtypes = (torch.float32, torch.float64)
    require(
        lower.dtype in dtypes and upper.dtype == lower.dtype, "lower", lower.dtype, f"must be of {dtypes}"
    )
    rule = INTERVALS.of_code(module)
    with torch.autocast(lower.device.type, enabled=False):
        if lower.dtype == torch.float32:
            return rule(module, lower, upper)
        require_precision(module)
        require_sums(lower.device)
        return _without_overflow((lower, upper), rule(module, lower, upper))


def _without_overflow(ends: Interval, bounds: Interval) -> Interval:
    """Bounds of what float32 gives, nan for images of which inputs or outputs of a layer may overflow."""
    rows = [end.unsqueeze(-1).flatten(1) for end in (*ends, *bounds)]
    sizes = [torch.linalg.vector_norm(row, math.inf, dim=1) for row in rows]
    lost = ~(torch.stack(sizes).amax(dim=0) <= LARGEST)
    if not bool(lost.any()):
        return bounds
    low, high = (end.masked_fill(lost.view(-1, *(1,) * (end.dim() - 1)), math.nan) for end in bounds)
    return low, high


def margins(layers: nn.Module, head: nn.Linear, lower: Tensor, upper: Tensor, labels: Tensor) -> Tensor:
    """Lower bounds of logit_label − logit_j, for logits = head(layers(x)) over all x between two ends.

    The head is folded into the differences V_label − V_j of its rows, so that what its rows share cancels;
    bounds of the logits one by one would lose that.

    Args:
        layers: everything before the head, a module that :func:`propagate` knows, to features (B, H).
        head: the last layer, from H features to K logits, as
            ``guards.require_plain`` demands.
        lower: lower ends, shape (B, ...), float32 to train or float64 to certify.
        upper: upper ends, of the same shape.
        labels: the classes, shape (B,).

    Returns:
        Shape (B, K), 0 at the label. In float64, where the other entries of a row are all above 0, every
        image of the box is classified as the label.

    Raises:
        SettingError: as :func:`propagate`.
    """
    require_plain(head, nn.Linear)
    require_unchanged(nn.Linear)
    if lower.dtype == torch.float64:
        require_precision(head)
    lower, upper = propagate(layers, lower, upper)
    with torch.autocast(lower.device.type, enabled=False):
        weight, bias = parameters(head, lower.dtype)
        logits = functional.linear((lower + upper) / 2, weight, bias)
        reach = for_label(functional.linear((upper - lower) / 2, spreads(weight)), labels)
        if lower.dtype == torch.float64:
            reach = reach + margin_error(weight, bias, largest_size(lower, upper), labels)
        return logits.gather(1, labels[:, None]) - logits - reach


def spreads(weight: Tensor) -> Tensor:
    """|V_i − V_j| of every two rows of a weight (K, H), shape (K², H)."""
    return (weight[:, None] - weight).abs().flatten(0, 1)


def for_label(pairs: Tensor, labels: Tensor) -> Tensor:
    """From values of every two classes (B, K²), as of :func:`spreads`, those of the label: (B, K)."""
    classes = math.isqrt(pairs.shape[1])
    return pairs.view(-1, classes, classes)[torch.arange(len(labels), device=labels.device), labels]


def margin_error(weight: Tensor, bias: Tensor | None, sizes: Tensor, labels: Tensor) -> Tensor:
    """Bound (B, K) of the float32 error of logit_label − logit_j, for features of sizes (B, H)."""
    errors = affine_error(weight, bias, sizes.amax(dim=1, keepdim=True))
    both = errors.gather(1, labels[:, None]) + errors
    return both.scatter(1, labels[:, None], 0.0)


def parameters(module: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    """Weight and bias in a precision; None where there is none."""
    weight, bias = (None if value is None else value.to(dtype) for value in (module.weight, module.bias))
    return weight, bias
