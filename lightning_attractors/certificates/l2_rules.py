"""Lipschitz constants and float32 errors of the layers that are known from the start."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lightning_attractors.certificates.class_code import remember
from lightning_attractors.certificates.float32_errors import Evaluation, Product, activated
from lightning_attractors.certificates.guards import (
    require_convolutions_by_sums,
    require_float32,
    require_type,
    require_unchanged,
    require_untouched,
)
from lightning_attractors.certificates.rounding import accumulated
from lightning_attractors.certificates.rules import isometry, register_rule
from lightning_attractors.dynamics.integrate import STEPS
from lightning_attractors.dynamics.nonexpansive import (
    ControlledLinear,
    ConvolutionOperator,
    DenseOperator,
    GradientFlow,
    Monotone,
    ScaledAvgPool,
)
from lightning_attractors.errors import require

_WHAT = "L2 bounds"


def _check_affine(layer: ControlledLinear | GradientFlow) -> None:
    """Refuse an operator of a type of its own, and weights of lower precision than float32.

    Raises:
        SettingError: naming the type or the precision.
    """
    require_type(layer.operator, (DenseOperator, ConvolutionOperator), _WHAT)
    require_unchanged(type(layer.operator))
    require_float32(layer.operator.weight, layer.bias)
    if isinstance(layer.operator, ConvolutionOperator):
        require_convolutions_by_sums(layer.operator.weight.device)


def _check_flow(layer: GradientFlow) -> None:
    """Refuse what :func:`_check_affine` does, and settings and an activation that were changed since.

    Raises:
        SettingError: naming the type, the precision or the setting.
    """
    _check_affine(layer)
    require(0 < layer.span < math.inf, "span", layer.span, "must be finite and above 0")
    substeps = layer.substeps
    require(substeps is None or substeps >= 1, "substeps", substeps, "must be null or at least 1")
    require_type(layer.activation, (Monotone,), _WHAT)
    require_unchanged(Monotone)
    for part in layer.activation.function.modules():
        require_untouched(part)
    layer.activation.check()


def _linear_gain(layer: ControlledLinear) -> float:
    _check_affine(layer)
    return layer.gain_bound()


def _linear_error(layer: ControlledLinear) -> Callable[[Evaluation], Evaluation]:
    _check_affine(layer)
    product, bias = Product(layer.operator, layer.scale), layer.bias
    return lambda x: product.forward(x, bias)


def _flow_gain(layer: GradientFlow) -> float:
    _check_flow(layer)
    return layer.gain_bound()


def _flow_error(layer: GradientFlow) -> Callable[[Evaluation], Evaluation]:
    _check_flow(layer)
    count, product = layer.count(), Product(layer.operator)
    gain = layer.gain_bound() ** (1 / count)
    step: Any = STEPS[layer.method]

    def field(y: Evaluation) -> Evaluation:
        return -product.adjoint(activated(layer.activation, product.forward(y, layer.bias)))

    def steps(x: Evaluation) -> Evaluation:
        for _ in range(count):
            # as if what float32 has come to were exact
            start = Evaluation(x.value, x.spread + x.error, torch.zeros_like(x.error))
            end: Evaluation = step(field, start, layer.span / count)
            x = Evaluation(end.value, gain * x.spread, gain * x.error + end.error)
        return x

    return steps


def _pool_error(layer: ScaledAvgPool) -> Callable[[Evaluation], Evaluation]:
    share = accumulated(layer.size**2 + 1)
    return lambda x: replace(x, value=layer(x.value), error=x.error + share * x.size)


def _rearranged(layer: nn.Module) -> Callable[[Evaluation], Evaluation]:
    return lambda x: replace(x, value=layer(x.value))


register_rule(ControlledLinear, lipschitz=_linear_gain, float32=_linear_error)
register_rule(GradientFlow, lipschitz=_flow_gain, float32=_flow_error)
register_rule(ScaledAvgPool, lipschitz=ScaledAvgPool.gain_bound, float32=_pool_error)
for _part in (DenseOperator, ConvolutionOperator, Monotone):
    remember(_part)
for _kind in (nn.Identity, nn.Flatten, nn.PixelUnshuffle, nn.PixelShuffle):
    register_rule(_kind, lipschitz=isometry, float32=_rearranged)
