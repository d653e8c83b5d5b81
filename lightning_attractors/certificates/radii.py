"""Certified radii: how far every image can be moved before an nmODE network may change its mind.

Two ways. ``lipschitz_radii`` divides the margin by the most that it can change per unit of distance; it
is one forward pass, serves L∞ and L2, and is the way of the published theorem, whose gain can be put in.
``interval_radii`` propagates a box and asks whether the label still wins: L∞ only, and larger radii.

Both are of the network as float32 runs it, and compute in float64: see
:mod:`~lightning_attractors.certificates.intervals` for what that covers. A distance is that between the
float32 images, in exact arithmetic: x + δ rounded to float32 may lie up to 2⁻²⁴ farther away than δ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_attractors.certificates.guards import (
    require_plain,
    require_precision,
    require_sums,
    require_unchanged,
)
from lightning_attractors.certificates.intervals import (
    for_label,
    linf_box,
    margin_error,
    margins,
    parameters,
    spreads,
)
from lightning_attractors.certificates.rounding import FARTHEST, FLOW_VALUE_ERROR, accumulated, affine_error
from lightning_attractors.dynamics.nmode import FlowMap, NMODELayer
from lightning_attractors.errors import require
from lightning_attractors.linalg import matrix_norm
from lightning_attractors.norms import NORMS, NormName

# Far above the rounding of float64 in what is computed here.
_SAFETY = 1e-9
# n of γ_n on top of the products: 4 for the flow map's argument, 1 for second order.
FLOW_OPERATIONS = 5


@torch.no_grad()
def margin_constants(
    layer: NMODELayer, head: nn.Linear, norm: NormName = "linf", gain: float | None = None
) -> Tensor:
    """The most that logit_i − logit_j can change per unit of distance between the layer's inputs.

    With W the layer's weight, V the head's and g the gain, neuron i changes by at most g‖W_i‖₁ ε for L∞ and
    g‖W_i‖₂ ε for L2, and the margin by Σ_i |V_yi − V_ji| times that. For L2, where all neurons change
    together, g ‖V_y − V_j‖₂ ‖W‖₂ bounds it too; the smaller one counts.

    Args:
        layer: one with a flow map.
        head: the linear layer behind it, to K logits.
        norm: ``linf`` or ``l2``.
        gain: a bound of sup|Y′|; the exact one, of the flow map, if not given.

    Returns:
        Shape (K, K), float64, symmetric, 0 on the diagonal.

    Raises:
        SettingError: if the norm is unknown, the gain is not above 0, the layer needs a solver, or hooks or a
            subclass may change what layer or head compute.
    """
    flow = _checked(layer, head)
    gain = flow.gain if gain is None else gain
    require(norm in NORMS, "norm", norm, "must be linf or l2")
    require(0 < gain < math.inf, "gain", gain, "must be above 0 and finite")
    weight, differences = layer.linear.weight.double(), spreads(head.weight.double())
    constants = differences @ weight.norm(p=1 if norm == "linf" else 2, dim=1)
    if norm == "l2":
        constants = torch.minimum(constants, differences.norm(dim=1) * matrix_norm(weight))
    classes = head.out_features
    return gain * constants.view(classes, classes)


@torch.no_grad()
def lipschitz_radii(
    layer: NMODELayer,
    head: nn.Linear,
    features: Tensor,
    labels: Tensor,
    norm: NormName = "linf",
    gain: float | None = None,
    backbone_constant: float = 1.0,
    batch_size: int = 500,
) -> Tensor:
    """Radius of each image within which head(layer(backbone(image))) keeps its label, by its margin.

    The radius is the smallest over j of (margin_j − r_j) / (κ L_j), with L_j of :func:`margin_constants`, κ
    the backbone's Lipschitz constant and r_j what float32 rounding in layer and head can add. Rounding in a
    backbone is not covered: one such as ``Flatten``, which only rearranges its inputs, has none.

    Args:
        layer: one with a flow map.
        head: the linear layer behind it, to K logits.
        features: what the backbone gives for the images, shape (B, n).
        labels: the classes, shape (B,).
        norm: ``linf`` or ``l2``.
        gain: a bound of sup|Y′|, such as those of :mod:`~lightning_attractors.certificates.nmode_gain`; the
            exact one, of the flow map, if not given.
        backbone_constant: κ, above 0, in the same norm on both sides; 1 for ``Flatten``.
        batch_size: how many images are looked at together.

    Returns:
        Shape (B,), float64, at most 1e6 / κ; 0 where the label does not win, or float32 may overflow.

    Raises:
        SettingError: if a setting is out of range, or as :func:`margin_constants`.
    """
    constant = backbone_constant
    require(0 < constant < math.inf, "backbone_constant", constant, "must be above 0 and finite")
    products = accumulated(layer.linear.in_features + FLOW_OPERATIONS)
    # rounding in the layer grows with |x|, which grows with the radius
    constants = margin_constants(layer, head, norm, gain) + products * margin_constants(layer, head)

    def radii(part: Tensor, classes: Tensor) -> Tensor:
        change = constants[classes]
        found = _sure_margins(layer, head, part.double(), classes) / (constant * change)
        found = found.scatter(1, classes[:, None], math.inf).amin(dim=1)
        # what is said below of sizes holds as far as that
        return found.nan_to_num(nan=0.0).clamp(min=0, max=FARTHEST / constant) * (1 - _SAFETY)

    return _in_batches(radii, batch_size, features, labels)


def _sure_margins(layer: NMODELayer, head: nn.Linear, features: Tensor, labels: Tensor) -> Tensor:
    """Margins (B, K) less what float32 rounding in layer and head can take from them at these features.

    They are −∞ where currents or logits may overflow within the farthest distance.
    """
    flow = _checked(layer, head)
    inner, offset = parameters(layer.linear, torch.float64)
    weight, bias = parameters(head, torch.float64)
    logits = functional.linear(flow(functional.linear(features, inner, offset)), weight, bias)
    errors = rounding_of_margins(layer, head, features.abs().amax(dim=1, keepdim=True), labels)
    return (logits.gather(1, labels[:, None]) - logits - errors).nan_to_num(nan=-math.inf)


@torch.no_grad()
def rounding_of_margins(layer: NMODELayer, head: nn.Linear, largest: Tensor, labels: Tensor) -> Tensor:
    """Bound of the float32 error of each margin of head(layer(features)), shape (B, K), float64.

    Args:
        layer: one with a flow map.
        head: the linear layer behind it, to K logits.
        largest: the largest size of a feature, shape (B, 1), float64.
        labels: the classes, shape (B,).
    """
    flow = _checked(layer, head)
    inner, offset = parameters(layer.linear, torch.float64)
    weight, bias = parameters(head, torch.float64)
    shares = accumulated(inner.shape[1] + FLOW_OPERATIONS) / accumulated(inner.shape[1])
    currents = shares * affine_error(inner, offset, largest)
    currents = currents.masked_fill(affine_error(inner, offset, largest + FARTHEST).isinf(), math.inf)
    outputs = flow.gain * currents + FLOW_VALUE_ERROR
    errors = for_label(outputs @ spreads(weight).T, labels)
    size = max(abs(flow.lowest), abs(flow.highest)) + FLOW_VALUE_ERROR
    return errors + margin_error(weight, bias, torch.full_like(outputs, size), labels)


@torch.no_grad()
def interval_verified(
    layers: nn.Module,
    head: nn.Linear,
    images: Tensor,
    labels: Tensor,
    strength: float | Tensor,
    bounds: tuple[float, float] | None = None,
    batch_size: int = 500,
) -> Tensor:
    """Whether interval propagation proves that every image within L∞ distance ``strength`` keeps its label.

    Args:
        layers: everything before the head, a module that
            :func:`~lightning_attractors.certificates.propagate` knows.
        head: the last layer, to K logits.
        images: shape (B, ...).
        labels: the classes, shape (B,).
        strength: ε, at least 0; one number, or one per image, shape (B,).
        bounds: the values that a pixel can have, if an attacker has to keep them, such as (0, 1).
        batch_size: how many images are looked at together.

    Returns:
        Shape (B,), bool.

    Raises:
        SettingError: if the strength is negative, a module has no interval bounds, or an image lies outside
            ``bounds``.
    """
    strengths = torch.as_tensor(strength, dtype=torch.float64, device=images.device).expand(len(images))
    require(bool((strengths >= 0).all()), "strength", strength, "must be at least 0")

    def verified(part: Tensor, classes: Tensor, sizes: Tensor) -> Tensor:
        lower, upper = linf_box(part.double(), sizes, bounds)
        found = margins(layers, head, lower, upper, classes)
        return (found.scatter(1, classes[:, None], math.inf) > 0).all(dim=1)

    return _in_batches(verified, batch_size, images, labels, strengths)


@torch.no_grad()
def interval_radii(
    layers: nn.Module,
    head: nn.Linear,
    images: Tensor,
    labels: Tensor,
    largest: float = 0.5,
    tolerance: float = 1e-4,
    bounds: tuple[float, float] | None = None,
    batch_size: int = 500,
) -> Tensor:
    """The largest L∞ radius of each image that interval propagation verifies, by bisection.

    What is given has itself been verified, so that it is sound whatever bisection assumes.

    Args:
        layers: everything before the head, as in :func:`interval_verified`.
        head: the last layer, to K logits.
        images: shape (B, ...).
        labels: the classes, shape (B,).
        largest: the largest radius to ask for, above 0.
        tolerance: how much a radius may fall short, above 0. Each halving costs a propagation of all images.
        bounds: the values that a pixel can have, if an attacker has to keep them, such as (0, 1).
        batch_size: how many images are looked at together.

    Returns:
        Shape (B,), float64, in [0, ``largest``]; 0 where not even the image itself is verified.

    Raises:
        SettingError: as :func:`interval_verified`, or if ``largest`` or ``tolerance`` is out of range.
    """
    require(0 < largest < math.inf, "largest", largest, "must be above 0 and finite")
    require(tolerance > 0, "tolerance", tolerance, "must be above 0")

    def radii(part: Tensor, classes: Tensor) -> Tensor:
        def holds(strengths: Tensor) -> Tensor:
            return interval_verified(layers, head, part, classes, strengths, bounds, batch_size)

        sure = torch.zeros(len(part), dtype=torch.float64, device=part.device)
        open_end = torch.full_like(sure, largest)
        sure = torch.where(holds(open_end), open_end, sure)
        open_end = torch.where(holds(torch.zeros_like(sure)), open_end, 0.0)
        for _ in range(math.ceil(math.log2(largest / tolerance))):
            middle = (sure + open_end) / 2
            passed = holds(middle)
            sure, open_end = torch.where(passed, middle, sure), torch.where(passed, open_end, middle)
        return sure

    return _in_batches(radii, batch_size, images, labels)


def certified_accuracy(radii: Tensor, correct: Tensor, strengths: Sequence[float]) -> Tensor:
    """The share of images that are classified correctly and certified to stay so, at each strength.

    Args:
        radii: certified radii, shape (B,), at least one.
        correct: whether each image is classified as its label, shape (B,), bool.
        strengths: distances ε, shape (S,), at least 0.

    Returns:
        Shape (S,), float64, in [0, 1]; at strength 0 the accuracy.

    Raises:
        SettingError: if there are no images or a strength is negative.

    Example:
        >>> radii, correct = torch.tensor([0.0, 0.1, 0.3]), torch.tensor([False, True, True])
        >>> certified_accuracy(radii, correct, [0.0, 0.2])
        tensor([0.6667, 0.3333], dtype=torch.float64)
    """
    require(len(radii) > 0, "radii", "none", "must be of at least one image")
    limits = torch.tensor(strengths, dtype=torch.float64, device=radii.device)
    require(bool((limits >= 0).all()), "strengths", strengths, "must be at least 0")
    held = correct & (radii >= limits[:, None])
    return held.double().mean(dim=1)


def _checked(layer: NMODELayer, head: nn.Linear) -> FlowMap:
    """The layer's flow map, if layer and head compute what they look like."""
    kinds: list[type[nn.Module]] = [NMODELayer, nn.Linear, FlowMap, nn.Linear]
    for module, kind in zip([layer, layer.linear, layer.flow, head], kinds, strict=True):
        require_plain(module, kind)
        require_unchanged(kind)
        require_precision(module)
    require_sums(head.weight.device)
    return cast(FlowMap, layer.flow)


def _in_batches(function: Callable[..., Tensor], size: int, *tensors: Any) -> Tensor:
    parts: Sequence[Sequence[Tensor]] = [tensor.split(size) for tensor in tensors]
    return torch.cat([function(*batch) for batch in zip(*parts, strict=True)])
