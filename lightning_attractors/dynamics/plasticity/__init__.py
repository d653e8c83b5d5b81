"""Local learning without labels: the rule of Krotov and Hopfield, filters that follow it, learning rates."""

from lightning_attractors.dynamics.plasticity.convolution import KHConv2d
from lightning_attractors.dynamics.plasticity.rule import (
    RankingName,
    check_plasticity,
    normalized_update,
    plasticity_update,
)
from lightning_attractors.dynamics.plasticity.schedules import ScheduleName, learning_rate

__all__ = [
    "KHConv2d",
    "RankingName",
    "ScheduleName",
    "check_plasticity",
    "learning_rate",
    "normalized_update",
    "plasticity_update",
]
