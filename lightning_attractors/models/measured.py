"""What models do with batches: refuse those that cannot be right, and log what is measured of the others."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_attractors.contracts import divergence_hint
from lightning_attractors.errors import require
from lightning_attractors.metrics import BatchCheck


class MeasuredModule(L.LightningModule):
    """A module of images and labels: batches are checked, metrics logged when an epoch ends.

    A family puts the metrics of its evaluations into ``val_metrics`` and ``test_metrics``, under the names
    that they are logged by, and updates them in its steps. A subclass with hooks that are used here,
    ``on_validation_epoch_end`` and the like, calls the base's too.

    Steps take their batches from :meth:`training_batch` and :meth:`evaluation_batch`, so that images that are
    not finite and labels that are no classes are refused: in training at the first batch and at the end of
    an epoch, else at its end. No step waits for the device for that.

    Of several processes one may have a batch fewer than another, so that each image counts once. So a step of
    an evaluation does nothing that waits for other processes, and logs nothing with ``sync_dist``, which
    takes their numbers of images to be equal: it updates metrics.

    Args:
        num_classes: K, to check labels with; None where they are anything.

    Attributes:
        image_shape: (C, H, W), which a family sets to check images with; None where they are anything.
        evaluates_alone: whether steps of an evaluation do so. A subclass whose steps do not says False, and
            processes have as many images each as Lightning's way of repeating some gives them.
    """

    monitor: str | None = None
    evaluates_alone = True
    image_shape: tuple[int, int, int] | None = None

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        self.val_metrics: nn.Module = nn.ModuleDict()
        self.test_metrics: nn.Module = nn.ModuleDict()
        self.training_check, self.evaluation_check = BatchCheck(num_classes), BatchCheck(num_classes)

    @property
    def batches_hold_images(self) -> bool:
        """Whether training batches hold images, and nothing that was computed from them before."""
        return True

    def training_batch(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a training batch, for a step to use."""
        images, labels = self._checked(batch, self.batches_hold_images)
        check = self.training_check
        if batch_idx == 0:
            check.update(images if self.batches_hold_images else None, labels)
            check.require_sound("train", self._cure)
        else:
            check.update(labels=labels)
        return images, self._among_classes(labels)

    def evaluation_batch(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Images and labels of any other batch, for a step to use."""
        images, labels = self._checked(batch)
        self.evaluation_check.update(images, labels)
        return images, self._among_classes(labels)

    def note_logits(self, logits: Tensor) -> None:
        """Have the epoch's end look at logits (B, K) of an evaluation."""
        self.evaluation_check.update(logits=logits)

    def on_device(self, number: float) -> Tensor:
        """A scalar to log, filled in where the module is: ``log`` copies a number, and waits for the copy."""
        return torch.full((), number, device=self.device)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Logits of a batch of images, or of images with labels."""
        images: Tensor = batch[0] if isinstance(batch, tuple | list) else batch
        require(isinstance(images, Tensor), "batch", _kind(batch), "must be images, or images and labels")
        self._require_images(images)
        logits: Tensor = self(images)
        self.evaluation_check.update(images, logits=logits)
        return logits

    def on_train_epoch_end(self) -> None:
        check = self.training_check
        if check.update_called:
            check.require_sound("train", self._cure)
            check.reset()

    def on_validation_epoch_start(self) -> None:
        self._begin(self.val_metrics)

    def on_test_epoch_start(self) -> None:
        self._begin(self.test_metrics)

    def on_predict_epoch_start(self) -> None:
        self.evaluation_check.reset()

    def on_validation_epoch_end(self) -> None:
        self._end("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._end("test", self.test_metrics)

    def on_predict_epoch_end(self) -> None:
        self.evaluation_check.require_sound("predict", self._cure)

    def _begin(self, metrics: nn.Module) -> None:
        # Also for what an evaluation in inference mode has left: outside of it, it cannot be changed in place
        for metric in (*metrics.children(), self.evaluation_check):
            cast(Metric, metric).reset()

    def _end(self, stage: str, metrics: nn.Module) -> None:
        self.evaluation_check.require_sound(stage, self._cure)
        for name, metric in metrics.named_children():
            shown = name == "accuracy" or f"{stage}/{name}" == self.monitor
            self.log(f"{stage}/{name}", cast(Metric, metric), prog_bar=shown and stage == "val")

    def _cure(self) -> str:
        return divergence_hint(self)

    def _checked(self, batch: Any, holds_images: bool = True) -> tuple[Tensor, Tensor]:
        """Images and labels of a batch that is of the kind and shape that models take.

        Raises:
            SettingError: if it is of another.
        """
        pair = isinstance(batch, tuple | list) and [isinstance(one, Tensor) for one in batch] == [True, True]
        require(pair, "batch", _kind(batch), "must be images and labels, two tensors")
        images, labels = batch
        if holds_images:
            self._require_images(images)
        shape, valid = tuple(labels.shape), f"must be one class for each image, of shape ({len(images)},)"
        require(shape == (len(images),), "labels", shape, valid)
        whole = not labels.is_floating_point() and not labels.is_complex()
        require(whole, "labels", str(labels.dtype), "must be classes, as torch.int64")
        return images, labels.long()

    def _require_images(self, images: Tensor) -> None:
        single = self.dtype != torch.float64
        kinds = (torch.float32, torch.float16, torch.bfloat16) if single else (torch.float64,)
        valid = "must be torch.float32 in [0, 1]; of bytes v2.ToDtype(torch.float32, scale=True) makes them"
        require(images.dtype in kinds, "images", str(images.dtype), valid)
        shape, expected = tuple(images.shape[1:]), self.image_shape
        valid = f"must be {expected}, as the model's image_shape"
        require(expected is None or shape == tuple(expected), "images of shape", shape, valid)

    def _among_classes(self, labels: Tensor) -> Tensor:
        # So that the check is what stumbles over others, and not an index on the device
        count = self.training_check.num_classes
        return labels if count is None else labels.clamp(0, count - 1)


def _kind(batch: Any) -> str:
    """What a batch is, for a message."""
    parts = [type(one).__name__ for one in batch] if isinstance(batch, tuple | list) else []
    return f"{type(batch).__name__} of {', '.join(parts)}" if parts else type(batch).__name__
