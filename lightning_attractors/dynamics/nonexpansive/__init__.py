"""Non-expansive layers: gradient flows of monotone activations, linear maps that know their norms."""

from lightning_attractors.dynamics.nonexpansive.field import GradientField
from lightning_attractors.dynamics.nonexpansive.gradient_flow import GradientFlow
from lightning_attractors.dynamics.nonexpansive.layers import ControlledLinear, ScaledAvgPool
from lightning_attractors.dynamics.nonexpansive.monotone import MONOTONE, Monotone
from lightning_attractors.dynamics.nonexpansive.operators import (
    ConvolutionOperator,
    DenseOperator,
    Operator,
    fixed_norms,
)

__all__ = [
    "MONOTONE",
    "ControlledLinear",
    "ConvolutionOperator",
    "DenseOperator",
    "GradientField",
    "GradientFlow",
    "Monotone",
    "Operator",
    "ScaledAvgPool",
    "fixed_norms",
]
