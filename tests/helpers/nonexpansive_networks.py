"""Small operators and non-expansive networks, and what these are in float64."""

import copy

import torch
from torch import nn

from lightning_attractors.dynamics.nonexpansive import (
    ControlledLinear,
    ConvolutionOperator,
    DenseOperator,
    GradientFlow,
    Monotone,
    ScaledAvgPool,
)

METHODS = ["euler", "heun", "rk4"]
OPERATORS = {
    "dense": lambda: DenseOperator(6, 4),
    "zeros": lambda: ConvolutionOperator(2, 3, 3, (5, 4), "zeros"),
    "circular": lambda: ConvolutionOperator(2, 3, 3, (5, 4), "circular"),
}


def domain(operator):
    """The shape of one input."""
    size = operator.image_size if isinstance(operator, ConvolutionOperator) else ()
    return (operator.weight.shape[1], *size)


def network(method="euler", activation="LeakyReLU", controlled=True, span=2.0, bias=0.1, scale=1.0):
    """Layers and head of a small network for images (1, 8, 8), 3 classes."""
    torch.manual_seed(0)
    sigma, substeps = Monotone(activation), None if controlled else 1
    layers = nn.Sequential(
        nn.PixelUnshuffle(2),
        ControlledLinear(ConvolutionOperator(4, 5, 1, (4, 4)), controlled),
        GradientFlow(ConvolutionOperator(5, 5, 3, (4, 4)), span, sigma, method, substeps),
        GradientFlow(ConvolutionOperator(5, 6, 3, (4, 4), "circular"), span, sigma, method, substeps),
        ScaledAvgPool(2),
        nn.Flatten(),
        GradientFlow(DenseOperator(20, 12), span, sigma, method, substeps),
    )
    head = ControlledLinear(DenseOperator(20, 3), controlled)
    with torch.no_grad():
        for layer in (*layers, head):
            if isinstance(layer, ControlledLinear | GradientFlow):
                layer.operator.weight.mul_(scale)
                layer.bias.normal_(std=bias)
    return layers.requires_grad_(False), head.requires_grad_(False)


def exact(layers, head):
    """The map that float32 evaluates, in float64: the same scales and numbers of sub-steps."""
    twin = copy.deepcopy(nn.Sequential(*layers, head)).double()
    for layer, original in zip(twin, (*layers, head), strict=True):
        if isinstance(layer, GradientFlow):
            layer.substeps = original.count()
        if isinstance(layer, ControlledLinear):
            layer.operator.weight.mul_(original.scale)
            layer.controlled = False
    return twin


def unit(values):
    return values / values.flatten(1).norm(dim=1).clamp(min=1e-30).view(-1, *[1] * (values.dim() - 1))
