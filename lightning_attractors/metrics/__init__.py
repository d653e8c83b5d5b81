"""torchmetrics classes of the attractor models."""

from lightning_attractors.metrics.attractors import (
    AccuracySpread,
    AttractorAccuracy,
    DistanceAccuracy,
    Overlap,
    TrajectoryError,
)

__all__ = ["AccuracySpread", "AttractorAccuracy", "DistanceAccuracy", "Overlap", "TrajectoryError"]
