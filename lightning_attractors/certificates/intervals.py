"""Interval propagation: bounds on what a network can give for every input of a box.

Used in two ways. In float32 it is quick, and what a network is trained against; its bounds are as good as
float32. In float64 it is a certificate, of the network as it really runs: the bounds hold for every output
that torch can compute **in float32** from float32 inputs in the box, since every layer is widened by the
error that its float32 evaluation can make (:mod:`~lightning_attractors.certificates.rounding`), and for exact
arithmetic with the same weights. Covered are sums of products in any order, on any device. Not covered are
bfloat16, float16 and TF32, and convolutions that do not sum products (Winograd, FFT). Of a
:class:`~lightning_attractors.dynamics.nmode.FlowMap` in float32 no proof is given: it is taken to be
within 1e-6 of Y, at an argument off by at most 2⁻²² of it, which is tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from lightning_attractors.certificates.rounding import (
    FLOW_ARGUMENT_ERROR,
    FLOW_VALUE_ERROR,
    UNDERFLOW,
    accumulated,
    affine_error,
    largest_size,
)
from lightning_attractors.dynamics.nmode import FlowMap, NMODELayer
from lightning_attractors.errors import SettingError, require

Interval = tuple[Tensor, Tensor]


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
    ``NMODELayer`` where that is a flow map. Weights are used in the precision of the ends, outside autocast.

    Args:
        module: what is bounded.
        lower: lower ends, shape (B, ...), float32 to train or float64 to certify.
        upper: upper ends, not below the lower ones, of the same shape.

    Returns:
        Lower and upper bounds, of the shape of the outputs.

    Raises:
        SettingError: naming the type of a module that is not known, that hooks may change, or whose mode
            leaves it undetermined.

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
    with torch.autocast(lower.device.type, enabled=False):
        return _propagate(module, lower, upper)


def margins(layers: nn.Module, head: nn.Linear, lower: Tensor, upper: Tensor, labels: Tensor) -> Tensor:
    """Lower bounds of logit_label − logit_j, for logits = head(layers(x)) over all x between two ends.

    The head is folded into the differences V_label − V_j of its rows, so that what its rows share cancels;
    bounds of the logits one by one would lose that.

    Args:
        layers: everything before the head, a module that :func:`propagate` knows, to features (B, H).
        head: the last layer, from H features to K logits, as :func:`require_plain` demands.
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


def require_plain(module: nn.Module, kind: type[nn.Module]) -> None:
    """Refuse a module that may compute something else than a class does with the module's attributes.

    Weights that :mod:`torch.nn.utils.parametrize` computes are as good as any in eval mode. In train mode
    they may differ each time, as those of ``parametrizations.spectral_norm`` do.

    Raises:
        SettingError: naming the type, if it is not of the class, is of a subclass with a ``forward`` of its
            own, has forward hooks or a ``forward`` that was put in, or is parametrized and in train mode.
    """
    plain = _computes_as(module, kind)
    require(plain, "module", type(module).__name__, f"must compute what {kind.__name__} does")
    _require_untouched(module)


def _computes_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    # a subclass may compute something else
    return isinstance(module, kind) and type(module).forward is kind.forward


def _require_untouched(module: nn.Module) -> None:
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    why = "must have no forward hooks, such as pruning and nn.utils.weight_norm add, nor a forward put in"
    require(not hooked, "module", type(module).__name__, why)
    _require_eval(module, not (module.training and is_parametrized(module)))


def _propagate(module: nn.Module, lower: Tensor, upper: Tensor) -> Interval:
    for kind, rule in _RULES.items():
        if _computes_as(module, kind):
            _require_untouched(module)
            return rule(module, lower, upper)
    known = ", ".join(kind.__name__ for kind in _RULES)
    raise SettingError("module", type(module).__name__, f"has no interval bounds: must be one of {known}")


def _chain(module: nn.Sequential, lower: Tensor, upper: Tensor) -> Interval:
    for child in module:
        lower, upper = _propagate(child, lower, upper)
    return lower, upper


def _same(module: nn.Module, lower: Tensor, upper: Tensor) -> Interval:
    return lower, upper


def _monotone(module: nn.Module, lower: Tensor, upper: Tensor) -> Interval:
    """A map that rises in every input and does not round."""
    return module(lower), module(upper)


def _relu(module: nn.ReLU, lower: Tensor, upper: Tensor) -> Interval:
    return lower.relu(), upper.relu()  # never in place, as the module may be


def _dropout(module: nn.Dropout, lower: Tensor, upper: Tensor) -> Interval:
    _require_eval(module, module.p == 0 or not module.training)
    return lower, upper


def _linear(module: nn.Linear, lower: Tensor, upper: Tensor) -> Interval:
    weight, bias = parameters(module, lower.dtype)
    middle = functional.linear((lower + upper) / 2, weight, bias)
    reach = functional.linear((upper - lower) / 2, weight.abs())
    if lower.dtype == torch.float64:
        largest = largest_size(lower, upper).amax(dim=-1, keepdim=True)
        reach = reach + affine_error(weight, bias, largest)
    return middle - reach, middle + reach


def _conv(module: nn.Conv2d, lower: Tensor, upper: Tensor) -> Interval:
    weight, bias = parameters(module, lower.dtype)
    middle = module._conv_forward((lower + upper) / 2, weight, bias)
    reach = module._conv_forward((upper - lower) / 2, weight.abs(), None)
    if lower.dtype == torch.float64:
        largest = largest_size(lower, upper).flatten(1).amax(dim=1, keepdim=True)
        reach = reach + affine_error(weight, bias, largest)[:, :, None, None]
    return middle - reach, middle + reach


def _batch_norm(module: nn.BatchNorm2d, lower: Tensor, upper: Tensor) -> Interval:
    mean, variance = module.running_mean, module.running_var
    _require_eval(module, not module.training and mean is not None)
    assert mean is not None
    assert variance is not None
    weight, bias = parameters(module, lower.dtype)
    mean, variance = mean.to(lower.dtype), variance.to(lower.dtype)
    scale = (variance + module.eps).rsqrt()
    scale = scale if weight is None else scale * weight
    bias = torch.zeros_like(scale) if bias is None else bias

    def columns(values: Tensor) -> Tensor:
        return values[:, None, None]

    middle = columns(scale) * ((lower + upper) / 2 - columns(mean)) + columns(bias)
    reach = columns(scale.abs()) * (upper - lower) / 2
    if lower.dtype == torch.float64:
        # at most nine operations on each term, however it is arranged
        sizes = largest_size(lower, upper) + columns(mean.abs())
        reach = reach + accumulated(9) * (columns(scale.abs()) * sizes + columns(bias.abs())) + UNDERFLOW
    return middle - reach, middle + reach


def _average_pool(module: nn.AvgPool2d, lower: Tensor, upper: Tensor) -> Interval:
    size = module.kernel_size
    return _average(module, lower, upper, size * size if isinstance(size, int) else math.prod(size))


def _adaptive_pool(module: nn.AdaptiveAvgPool2d, lower: Tensor, upper: Tensor) -> Interval:
    return _average(module, lower, upper, lower.shape[-2] * lower.shape[-1])


def _average(module: nn.Module, lower: Tensor, upper: Tensor, terms: int) -> Interval:
    low, high = module(lower), module(upper)
    if lower.dtype == torch.float64:
        error = accumulated(terms) * module(largest_size(lower, upper)) + UNDERFLOW
        low, high = low - error, high + error
    return low, high


def _flow(module: FlowMap, lower: Tensor, upper: Tensor) -> Interval:
    if lower.dtype != torch.float64:
        return module.image(lower, upper)
    reach = FLOW_ARGUMENT_ERROR * largest_size(lower, upper)
    low, high = module.image(lower - reach, upper + reach)
    return low - FLOW_VALUE_ERROR, high + FLOW_VALUE_ERROR


def _nmode(module: NMODELayer, lower: Tensor, upper: Tensor) -> Interval:
    return _propagate(module.flow, *_propagate(module.linear, lower, upper))


def parameters(module: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    """Weight and bias in a precision; None where there is none."""
    weight, bias = (None if value is None else value.to(dtype) for value in (module.weight, module.bias))
    return weight, bias


def _require_eval(module: nn.Module, fixed: bool) -> None:
    why = "must be in eval mode, with running statistics if it has any, even in training against intervals"
    require(fixed, "module", type(module).__name__, why)


_RULES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], Interval]] = {
    nn.Sequential: _chain,
    nn.Flatten: _monotone,
    nn.Identity: _same,
    nn.Dropout: _dropout,
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _relu,
    nn.MaxPool2d: _monotone,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    FlowMap: _flow,
    NMODELayer: _nmode,
}
