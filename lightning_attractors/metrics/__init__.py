"""torchmetrics classes of the attractor models, and measures of locally learned filters."""

from lightning_attractors.metrics.attractors import (
    AccuracySpread,
    AttractorAccuracy,
    DistanceAccuracy,
    Overlap,
    TrajectoryError,
)
from lightning_attractors.metrics.batches import BatchCheck
from lightning_attractors.metrics.filters import converged_filters, f_score, negative_share, positive_share

__all__ = [
    "AccuracySpread",
    "AttractorAccuracy",
    "BatchCheck",
    "DistanceAccuracy",
    "Overlap",
    "TrajectoryError",
    "converged_filters",
    "f_score",
    "negative_share",
    "positive_share",
]
