"""The mathematics in plain torch: couplings, fields, integrators, flow maps, noise, local plasticity."""

from lightning_attractors.dynamics.couplings import (
    Coupling,
    CouplingName,
    ProjectedCoupling,
    SpectralCoupling,
    make_coupling,
)
from lightning_attractors.dynamics.fields import CoupledField, DoubleWellField, FiringRateField
from lightning_attractors.dynamics.flow_map import FlowMap
from lightning_attractors.dynamics.fused_euler import integrate_fused
from lightning_attractors.dynamics.gains import Gain, HillGain, check_gain
from lightning_attractors.dynamics.integrate import (
    STEPS,
    IntegratorName,
    Step,
    VectorField,
    clipped,
    euler,
    euler_maruyama,
    heun,
    integrate,
    reverse,
    rk4,
    states,
    trajectory,
)
from lightning_attractors.dynamics.monotone import MONOTONE, Monotone
from lightning_attractors.dynamics.nmode import NMODELayer
from lightning_attractors.dynamics.noise import DampedNoise, damping_scale
from lightning_attractors.dynamics.nonexpansive import ControlledLinear, GradientFlow, ScaledAvgPool
from lightning_attractors.dynamics.operators import ConvolutionOperator, DenseOperator, Operator
from lightning_attractors.dynamics.patterns import block_patterns, random_patterns
from lightning_attractors.dynamics.plasticity import (
    KHConv2d,
    RankingName,
    check_plasticity,
    normalized_update,
    plasticity_update,
)
from lightning_attractors.dynamics.schedules import ScheduleName, learning_rate
from lightning_attractors.linalg import (
    Padding,
    convolution_norm,
    matrix_norm,
    quick_convolution_norm,
    quick_matrix_norm,
)
from lightning_attractors.random import keyed_generator

__all__ = [
    "MONOTONE",
    "STEPS",
    "ControlledLinear",
    "ConvolutionOperator",
    "CoupledField",
    "Coupling",
    "CouplingName",
    "DampedNoise",
    "DenseOperator",
    "DoubleWellField",
    "FiringRateField",
    "FlowMap",
    "Gain",
    "GradientFlow",
    "HillGain",
    "IntegratorName",
    "KHConv2d",
    "Monotone",
    "NMODELayer",
    "Operator",
    "Padding",
    "ProjectedCoupling",
    "RankingName",
    "ScaledAvgPool",
    "ScheduleName",
    "SpectralCoupling",
    "Step",
    "VectorField",
    "block_patterns",
    "check_gain",
    "check_plasticity",
    "clipped",
    "convolution_norm",
    "damping_scale",
    "euler",
    "euler_maruyama",
    "heun",
    "integrate",
    "integrate_fused",
    "keyed_generator",
    "learning_rate",
    "make_coupling",
    "matrix_norm",
    "normalized_update",
    "plasticity_update",
    "quick_convolution_norm",
    "quick_matrix_norm",
    "random_patterns",
    "reverse",
    "rk4",
    "states",
    "trajectory",
]
