"""Optimisers: Muon, several of them that step as one, and a schedule for their learning rates."""

from lightning_attractors.optim.by_name import OptimizerCallable
from lightning_attractors.optim.grouped import GroupedOptimizer, build_optimizer
from lightning_attractors.optim.muon import Muon
from lightning_attractors.optim.one_cycle import OneCycle
from lightning_attractors.optim.scheduling import build_schedule, try_schedule

__all__ = [
    "GroupedOptimizer",
    "Muon",
    "OneCycle",
    "OptimizerCallable",
    "build_optimizer",
    "build_schedule",
    "try_schedule",
]
