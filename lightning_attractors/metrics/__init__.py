"""torchmetrics classes of the attractor models."""

from lightning_attractors.metrics.attractors import AttractorAccuracy, Overlap, TrajectoryError

__all__ = ["AttractorAccuracy", "Overlap", "TrajectoryError"]
