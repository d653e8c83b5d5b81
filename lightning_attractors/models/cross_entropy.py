"""What models share whose logits are trained with the cross-entropy."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional
from torchmetrics import MeanMetric
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

    def __init__(self, num_classes: int, **optimization: Unpack[OptimizationSettings]) -> None:
        super().__init__(**optimization)
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_loss = MeanMetric()
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = functional.cross_entropy(self.training_logits(images), labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def training_logits(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of what a training batch holds, which is images unless a family says otherwise."""
        logits: Tensor = self(inputs)
        return logits

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.validate(*batch)

    def validate(self, images: Tensor, labels: Tensor) -> Tensor:
        """Log accuracy and loss of a validation batch, and give its logits (B, K)."""
        logits: Tensor = self(images)
        self.val_accuracy.update(logits, labels)
        self.val_loss.update(functional.cross_entropy(logits, labels), weight=len(labels))
        self.log("val/accuracy", self.val_accuracy, on_epoch=True, prog_bar=True)
        self.log("val/loss", self.val_loss, on_epoch=True)
        return logits

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.test_accuracy.update(self(images), labels)
        self.log("test/accuracy", self.test_accuracy, on_epoch=True)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Logits of a batch of images, or of images with labels."""
        logits: Tensor = self(batch[0] if isinstance(batch, tuple | list) else batch)
        return logits
