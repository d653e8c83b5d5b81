"""Intervals through layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_attractors.dynamics.flow_map import FlowMap
from lightning_attractors.dynamics.nmode import NMODELayer
from lightning_attractors.errors import SettingError


def propagate(module: nn.Module, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of a module's outputs for inputs between two bounds."""
    if isinstance(module, nn.Sequential):
        for child in module:
            lower, upper = propagate(child, lower, upper)
        return lower, upper
    if isinstance(module, NMODELayer):
        return propagate(module.flow, *propagate(module.linear, lower, upper))
    if isinstance(module, FlowMap):
        return module.image(lower, upper)
    if isinstance(module, nn.Flatten | nn.Identity | nn.ReLU):
        return module(lower), module(upper)
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    if isinstance(module, nn.Linear):
        center, radius = module(center), functional.linear(radius, module.weight.abs())
    elif isinstance(module, nn.Conv2d):
        center = module(center)
        radius = functional.conv2d(radius, module.weight.abs(), None, module.stride, module.padding)
    else:
        raise SettingError("module", type(module).__name__, "intervals cannot be propagated through it")
    return center - radius, center + radius


def margins(layers: nn.Module, head: nn.Linear, lower: Tensor, upper: Tensor, labels: Tensor) -> Tensor:
    """Lower bounds of logit_label − logit_j, shape (B, K)."""
    lower, upper = propagate(layers, lower, upper)
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    weight = head.weight[labels][:, None] - head.weight
    offset = 0 if head.bias is None else head.bias[labels][:, None] - head.bias
    return (
        torch.einsum("bkn,bn->bk", weight, center) + offset - torch.einsum("bkn,bn->bk", weight.abs(), radius)
    )
