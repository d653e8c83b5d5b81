"""Interval rules of the layers that are known from the start."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_attractors.certificates.guards import require_convolutions_by_sums, require_eval
from lightning_attractors.certificates.intervals import parameters, propagate
from lightning_attractors.certificates.rounding import (
    FLOW_ARGUMENT_ERROR,
    FLOW_VALUE_ERROR,
    LARGEST,
    affine_error,
    largest_size,
    rounding_error,
)
from lightning_attractors.certificates.rules import Interval, register_rule
from lightning_attractors.dynamics.nmode import FlowMap, NMODELayer
from lightning_attractors.errors import require


def _chain(module: nn.Sequential, lower: Tensor, upper: Tensor) -> Interval:
    for child in module:
        lower, upper = propagate(child, lower, upper)
    return lower, upper


def _same(module: nn.Module, lower: Tensor, upper: Tensor) -> Interval:
    return lower, upper


def _monotone(module: nn.Module, lower: Tensor, upper: Tensor) -> Interval:
    """A map that rises in every input and does not round."""
    return module(lower), module(upper)


def _relu(module: nn.ReLU, lower: Tensor, upper: Tensor) -> Interval:
    return lower.relu(), upper.relu()  # never in place, as the module may be


def _dropout(module: nn.Dropout, lower: Tensor, upper: Tensor) -> Interval:
    require_eval(module, module.p == 0 or not module.training)
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
    if lower.dtype == torch.float64:
        require_convolutions_by_sums(lower.device)
    weight, bias = parameters(module, lower.dtype)
    middle = module._conv_forward((lower + upper) / 2, weight, bias)
    reach = module._conv_forward((upper - lower) / 2, weight.abs(), None)
    if lower.dtype == torch.float64:
        largest = largest_size(lower, upper).flatten(1).amax(dim=1, keepdim=True)
        reach = reach + affine_error(weight, bias, largest)[:, :, None, None]
    return middle - reach, middle + reach


def _batch_norm(module: nn.BatchNorm2d, lower: Tensor, upper: Tensor) -> Interval:
    mean, variance = module.running_mean, module.running_var
    require_eval(module, not module.training and mean is not None)
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
        reach = reach + rounding_error(columns(scale.abs()) * sizes + columns(bias.abs()), 9)
        # nor may what is made of the statistics alone overflow or be subnormal
        normal = (scale.abs() <= LARGEST) & ((scale.abs() >= 1 / LARGEST) | (scale == 0))
        reach = reach.masked_fill(columns(~normal), math.inf)
    return middle - reach, middle + reach


def _average_pool(module: nn.AvgPool2d, lower: Tensor, upper: Tensor) -> Interval:
    size, divisor = module.kernel_size, module.divisor_override
    require(divisor is None or divisor > 0, "divisor_override", divisor, "must be null or above 0")
    return _average(module, lower, upper, size * size if isinstance(size, int) else math.prod(size))


def _adaptive_pool(module: nn.AdaptiveAvgPool2d, lower: Tensor, upper: Tensor) -> Interval:
    return _average(module, lower, upper, lower.shape[-2] * lower.shape[-1])


def _average(module: nn.Module, lower: Tensor, upper: Tensor, terms: int) -> Interval:
    low, high = module(lower), module(upper)
    if lower.dtype == torch.float64:
        error = rounding_error(module(largest_size(lower, upper)), terms)
        low, high = low - error, high + error
    return low, high


def _flow(module: FlowMap, lower: Tensor, upper: Tensor) -> Interval:
    if lower.dtype != torch.float64:
        return module.image(lower, upper)
    reach = FLOW_ARGUMENT_ERROR * largest_size(lower, upper)
    low, high = module.image(lower - reach, upper + reach)
    return low - FLOW_VALUE_ERROR, high + FLOW_VALUE_ERROR


def _nmode(module: NMODELayer, lower: Tensor, upper: Tensor) -> Interval:
    return propagate(module.flow, *propagate(module.linear, lower, upper))


register_rule(nn.Sequential, interval=_chain)
register_rule(nn.Flatten, interval=_monotone)
register_rule(nn.Identity, interval=_same)
register_rule(nn.Dropout, interval=_dropout)
register_rule(nn.Linear, interval=_linear)
register_rule(nn.Conv2d, interval=_conv)
register_rule(nn.BatchNorm2d, interval=_batch_norm)
register_rule(nn.ReLU, interval=_relu)
register_rule(nn.MaxPool2d, interval=_monotone)
register_rule(nn.AvgPool2d, interval=_average_pool)
register_rule(nn.AdaptiveAvgPool2d, interval=_adaptive_pool)
register_rule(FlowMap, interval=_flow)
register_rule(NMODELayer, interval=_nmode)
