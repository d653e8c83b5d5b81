"""The metrics of attractor models: classes, and how near final states come to attractors."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_attractors.metrics import AccuracySpread, Overlap


class AttractorMetrics(nn.Module):
    """The metrics of one stage; their names are the names they are logged by.

    Over several realisations of the noise, each counts as a state of its own; ``accuracy_spread`` is the
    standard deviation of the accuracy across them.
    """

    def __init__(self, num_classes: int, num_realisations: int, closeness: dict[str, Metric]) -> None:
        super().__init__()
        # labels have been checked, and to check them again would wait for the device at every batch
        self.accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.loss = MeanMetric()
        self._comparing = ["overlap", *closeness]
        for name, metric in {"overlap": Overlap(), **closeness}.items():
            self.add_module(name, metric.clone())
        self.accuracy_spread = AccuracySpread(num_realisations) if num_realisations > 1 else None

    def update(
        self, logits: Tensor, states: Tensor, targets: Tensor, labels: Tensor, realisation: int
    ) -> None:
        """Add the final states (B, N) of one realisation, whose attractors are ``targets`` (B, N)."""
        self.accuracy.update(logits, labels)
        self.loss.update(squared_distance(states, targets), weight=len(labels))
        for name in self._comparing:
            cast(Metric, self.get_submodule(name)).update(states, targets)
        if self.accuracy_spread is not None:
            self.accuracy_spread.update(logits.argmax(dim=1) == labels, realisation)


def squared_distance(states: Tensor, targets: Tensor) -> Tensor:
    """The mean of ‖x − φ‖² over states and their attractors, both of shape (B, N)."""
    return (states - targets).square().sum(dim=1).mean()
