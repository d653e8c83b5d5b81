"""The mathematics in plain torch: couplings, vector fields, integrators."""

from lightning_attractors.dynamics.couplings import (
    Coupling,
    CouplingName,
    ProjectedCoupling,
    SpectralCoupling,
    make_coupling,
)
from lightning_attractors.dynamics.fields import DoubleWellField
from lightning_attractors.dynamics.fused_euler import integrate_double_well
from lightning_attractors.dynamics.integrate import (
    STEPS,
    IntegratorName,
    Step,
    VectorField,
    clipped,
    euler,
    integrate,
    reverse,
    rk4,
    states,
    trajectory,
)
from lightning_attractors.dynamics.patterns import block_patterns

__all__ = [
    "STEPS",
    "Coupling",
    "CouplingName",
    "DoubleWellField",
    "IntegratorName",
    "ProjectedCoupling",
    "SpectralCoupling",
    "Step",
    "VectorField",
    "block_patterns",
    "clipped",
    "euler",
    "integrate",
    "integrate_double_well",
    "make_coupling",
    "reverse",
    "rk4",
    "states",
    "trajectory",
]
