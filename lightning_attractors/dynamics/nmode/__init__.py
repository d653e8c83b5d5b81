"""nmODE: neurons that integrate their input alone, so that one scalar function says it all."""

from lightning_attractors.dynamics.nmode.field import NMODEField
from lightning_attractors.dynamics.nmode.flow_map import FlowMap
from lightning_attractors.dynamics.nmode.layer import NMODELayer
from lightning_attractors.dynamics.nmode.solved_flow import SolvedFlow

__all__ = ["FlowMap", "NMODEField", "NMODELayer", "SolvedFlow"]
