"""Networks with planted attractors: couplings, fields, gains, patterns, noise, fused integration."""

from lightning_attractors.dynamics.planted.any_field import PlantedField, dual_basis
from lightning_attractors.dynamics.planted.couplings import (
    Coupling,
    CouplingName,
    ProjectedCoupling,
    SpectralCoupling,
    make_coupling,
)
from lightning_attractors.dynamics.planted.damping import DampingName, check_damping, damping_scale
from lightning_attractors.dynamics.planted.fields import CoupledField, DoubleWellField, FiringRateField
from lightning_attractors.dynamics.planted.fused_euler import integrate_fused
from lightning_attractors.dynamics.planted.fused_steps import FusedStep, fused_step_of, has_fused_step
from lightning_attractors.dynamics.planted.gains import Gain, HillGain, check_gain
from lightning_attractors.dynamics.planted.noise import DampedNoise
from lightning_attractors.dynamics.planted.patterns import block_patterns, random_patterns
from lightning_attractors.dynamics.planted.pointwise import Cubic, Hill, Pointwise

__all__ = [
    "CoupledField",
    "Coupling",
    "CouplingName",
    "Cubic",
    "DampedNoise",
    "DampingName",
    "DoubleWellField",
    "FiringRateField",
    "FusedStep",
    "Gain",
    "Hill",
    "HillGain",
    "PlantedField",
    "Pointwise",
    "ProjectedCoupling",
    "SpectralCoupling",
    "block_patterns",
    "check_damping",
    "check_gain",
    "damping_scale",
    "dual_basis",
    "fused_step_of",
    "has_fused_step",
    "integrate_fused",
    "make_coupling",
    "random_patterns",
]
