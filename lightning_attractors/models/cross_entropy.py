"""What models share whose logits are trained with the cross-entropy."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_attractors.keywords import Unpack
from lightning_attractors.models.base import Classifier, OptimizationSettings


class CrossEntropyClassifier(Classifier):
    """A classifier whose loss is the cross-entropy of its logits.

    Args:
        num_classes: number of classes K.
        **optimization: the settings of :class:`~lightning_attractors.models.base.Classifier`.
    """

    monitor = "val/accuracy"
    half_precisions: tuple[str, ...] = ("bf16-true",)
    val_metrics: nn.ModuleDict
    test_metrics: nn.ModuleDict

    def __init__(self, num_classes: int, **optimization: Unpack[OptimizationSettings]) -> None:
        super().__init__(num_classes=num_classes, **optimization)
        # labels have been checked, and to check them again would wait for the device at every batch
        accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.val_metrics = nn.ModuleDict({"accuracy": accuracy, "loss": MeanMetric()})
        self.test_metrics = nn.ModuleDict({"accuracy": accuracy.clone()})

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = self.training_batch(batch, batch_idx)
        loss = functional.cross_entropy(self.training_logits(images), labels)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def training_logits(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of what a training batch holds, which is images unless a family says otherwise."""
        logits: Tensor = self(inputs)
        return logits

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.measure(self.val_metrics, *self.evaluation_batch(batch))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.measure(self.test_metrics, *self.evaluation_batch(batch))

    def measure(self, metrics: nn.ModuleDict, images: Tensor, labels: Tensor) -> Tensor:
        """Add a batch to the accuracy, and to the loss where it is one of the metrics; its logits (B, K)."""
        logits: Tensor = self(images)
        self.note_logits(logits)
        cast(Metric, metrics["accuracy"]).update(logits, labels)
        if "loss" in metrics:
            cast(Metric, metrics["loss"]).update(functional.cross_entropy(logits, labels), weight=len(labels))
        return logits
