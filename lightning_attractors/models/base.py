"""What all models share: optimisers from YAML, checks and metrics, checkpoints that know whose they are."""

from __future__ import annotations

import math
from typing import Any, Literal, TypedDict, cast

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable
from torch import Tensor, distributed, nn
from torchmetrics import Metric

from lightning_attractors.contracts import awaits_length, divergence_hint, phases_of, watched_metric
from lightning_attractors.errors import SettingError, require
from lightning_attractors.metrics import BatchCheck
from lightning_attractors.optim import OptimizerCallable, build_optimizer


class FurtherOptimizationSettings(TypedDict, total=False):
    """Settings of :class:`Classifier`, but for the optimiser that a family may have its own default for."""

    optimizers: dict[str, OptimizerCallable] | None
    lr_scheduler: LRSchedulerCallable | None
    lr_interval: Literal["step", "epoch"]


class OptimizationSettings(FurtherOptimizationSettings, total=False):
    """Settings of :class:`Classifier`, which describes them and has their defaults."""

    optimizer: OptimizerCallable


OPTIMIZATION_SETTINGS = list(OptimizationSettings.__annotations__)


class Classifier(L.LightningModule):
    """Base of all models: ``forward(images) -> logits``, images in [0, 1] of shape (B, C, H, W).

    A family puts the metrics of its evaluations into ``val_metrics`` and ``test_metrics``, under the names
    that they are logged by, and updates them in its steps. They are logged when an epoch ends, by every
    process: one that had no batch would else leave the others waiting. A subclass with hooks of the same
    names, ``on_validation_epoch_end`` and the like, calls the base's too.

    Steps take their batches from :meth:`training_batch` and :meth:`evaluation_batch`, so that images that are
    not finite and labels that are no classes are refused: in training at the first batch and at the end of
    an epoch, else at its end. No step waits for the device for that.

    Args:
        optimizer: makes the optimiser from the parameters.
        optimizers: optimisers of parameters whose name starts with the key; others get ``optimizer``.
        lr_scheduler: makes the learning-rate scheduler from the optimiser; epochs of an earlier phase of the
            training do not count.
        lr_interval: whether the scheduler steps once per optimizer ``step`` or per ``epoch``.
        num_classes: K, to check labels with; None where they are anything.
    """

    monitor: str | None = None
    divergence_hint = "lower the learning rate (model.optimizer)"

    def __init__(
        self,
        optimizer: OptimizerCallable = torch.optim.Adam,
        optimizers: dict[str, OptimizerCallable] | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "epoch",
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.val_metrics: nn.Module = nn.ModuleDict()
        self.test_metrics: nn.Module = nn.ModuleDict()
        self.training_check, self.evaluation_check = BatchCheck(num_classes), BatchCheck(num_classes)
        self.optimizer_factory = optimizer
        self.optimizer_factories = optimizers or {}
        self.scheduler_factory = lr_scheduler
        self.lr_interval = lr_interval

    @property
    def batches_hold_images(self) -> bool:
        """Whether training batches hold images, and nothing that was computed from them before."""
        return True

    def training_batch(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a training batch, for a step to use."""
        images, labels = batch
        check = self.training_check
        if batch_idx == 0:
            check.update(images if self.batches_hold_images else None, labels)
            check.require_sound("train", self._cure)
        else:
            check.update(labels=labels)
        return images, self._among_classes(labels)

    def evaluation_batch(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Images and labels of any other batch, for a step to use."""
        images, labels = batch
        self.evaluation_check.update(images, labels)
        return images, self._among_classes(labels)

    def note_logits(self, logits: Tensor) -> None:
        """Have the epoch's end look at logits (B, K) of an evaluation."""
        self.evaluation_check.update(logits=logits)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Logits of a batch of images, or of images with labels."""
        images: Tensor = batch[0] if isinstance(batch, tuple | list) else batch
        logits: Tensor = self(images)
        self.evaluation_check.update(images, logits=logits)
        return logits

    def log_loss(self, loss: Tensor) -> None:
        """Log ``train/loss``: where it is written down, and at the end of an epoch, the mean over processes.

        Between, where only a progress bar shows it, it is this process's own: to add up takes all of them.
        """
        if distributed.is_available() and distributed.is_initialized():
            every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
            written = bool(every) and (self.global_step + 1) % every == 0
            if written or self.trainer.is_last_batch:
                loss = self.trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean")
        self.log("train/loss", loss, prog_bar=True)

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

    def _among_classes(self, labels: Tensor) -> Tensor:
        # So that the check is what stumbles over others, and not an index on the device
        count = self.training_check.num_classes
        return labels if count is None else labels.clamp(0, count - 1)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self, self.optimizer_factory, self.optimizer_factories)
        for group in optimizer.param_groups:
            if group.get("precision") == "auto":  # Muon's: the config of a run then says what it ran in
                bfloat16 = str(self.trainer.precision).startswith("bf16")
                group["precision"] = "bfloat16" if bfloat16 else "float32"
        if self.scheduler_factory is None:
            return optimizer
        scheduler: Any = self.scheduler_factory(optimizer)
        if awaits_length(scheduler):
            scheduler.total_steps = self._training_length()
        config = {"scheduler": scheduler, "interval": self.lr_interval}
        if (metric := watched_metric(scheduler)) is not None:
            config["monitor"] = metric
        return {"optimizer": optimizer, "lr_scheduler": config}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.constrain_()

    def constrain_(self) -> None:
        """Bring parameters back to where they may be, in place; called after every step of the optimiser."""

    def _training_length(self) -> int:
        """The number of times that the scheduler will step."""
        # a trainer with a phase before this one counts its epochs separately
        phases = phases_of(self.trainer)
        epochs = self.trainer.max_epochs if phases is None else phases.classifier_epochs
        length = self.trainer.estimated_stepping_batches if self.lr_interval == "step" else epochs
        known = length is not None and 0 < length < math.inf
        require(known, "trainer.max_epochs", epochs, "must be above 0: the schedule spans the training")
        return int(length or 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model_class"] = type(self).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        written_by = checkpoint.get("model_class", type(self).__name__)
        if written_by != type(self).__name__:
            raise SettingError("ckpt_path", written_by, f"must be a checkpoint of {type(self).__name__}")
        ours = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        for name, _ in self.named_parameters():
            value = checkpoint["state_dict"].get(name)
            if value is not None and not bool(value.isfinite().all()):
                raise SettingError("ckpt_path", f"a checkpoint whose {name} is not finite", "must be finite")
        theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                raise SettingError(
                    "ckpt_path",
                    f"{name} of shape {theirs.get(name)}",
                    f"this {type(self).__name__} needs shape {ours.get(name)}; use the config that made it",
                )
