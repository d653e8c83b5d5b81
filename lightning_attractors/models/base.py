"""What all models share: optimisers from YAML, and checkpoints that know whose they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from lightning.pytorch.cli import LRSchedulerCallable
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_attractors.contracts import awaits_length, class_names_of, phases_of, watched_metric
from lightning_attractors.errors import SettingError, require
from lightning_attractors.models.measured import MeasuredModule
from lightning_attractors.models.nonexpansive_stages import NonexpansiveStages
from lightning_attractors.models.prediction import Prediction, predict_file
from lightning_attractors.optim import OptimizerCallable, build_optimizer, build_schedule, try_schedule


class FurtherOptimizationSettings(TypedDict, total=False):
    """Settings of :class:`Classifier`, but for the optimiser that a family may have its own default for."""

    optimizers: dict[str, OptimizerCallable] | None
    lr_scheduler: LRSchedulerCallable | None
    lr_interval: Literal["step", "epoch"]


class OptimizationSettings(FurtherOptimizationSettings, total=False):
    """Settings of :class:`Classifier`, which describes them and has their defaults."""

    optimizer: OptimizerCallable


OPTIMIZATION_SETTINGS = list(OptimizationSettings.__annotations__)


class Classifier(MeasuredModule):
    """Base of all models: ``forward(images) -> logits``, images in [0, 1] of shape (B, C, H, W).

    Args:
        optimizer: makes the optimiser from the parameters.
        optimizers: optimisers of parameters whose name starts with the key; others get ``optimizer``.
        lr_scheduler: makes the learning-rate scheduler from the optimiser; epochs of an earlier phase of the
            training do not count.
        lr_interval: whether the scheduler steps once per optimizer ``step`` or per ``epoch``.
        num_classes: K, to check labels with; None where they are anything.

    Attributes:
        class_names: K names, in the order of the labels, of the data that the model was trained with; empty
            where these have none. Checkpoints keep them.
    """

    half_precisions: tuple[str, ...] = ()  # what it works in of those with weights of 16 bits
    divergence_hint = "lower the learning rate (model.optimizer)"

    def __init__(
        self,
        optimizer: OptimizerCallable = torch.optim.Adam,
        optimizers: dict[str, OptimizerCallable] | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "epoch",
        num_classes: int | None = None,
    ) -> None:
        super().__init__(num_classes)
        require(callable(optimizer), "optimizer", optimizer, "must be an optimizer, such as Adam")
        self.class_names: list[str] = []
        self.optimizer_factory = optimizer
        self.optimizer_factories = optimizers or {}
        self.scheduler_factory = lr_scheduler
        self.lr_interval = lr_interval

    def setup(self, stage: str) -> None:
        precision = str(self.trainer.precision)
        known = ["32-true", "64-true", "16-mixed", "bf16-mixed", *self.half_precisions]
        works = not precision.endswith("16-true") or precision in known
        require(works, "trainer.precision", precision, f"must be one of {known} for {type(self).__name__}")
        strategy = self.trainer.strategy
        shards = isinstance(strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy)
        valid = "must be one as ddp: attractors, constraints and certificates are of whole matrices"
        require(not shards, "trainer.strategy", type(strategy).__name__, valid)
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" or not self.class_names:
            self.class_names = class_names_of(datamodule) or self.class_names

    def predict_image(self, path: str | Path) -> Prediction:
        """Class, confidence and, where the model has a certificate, certified radius of the image in a file.

        The file may be grey or coloured and of any size, and what is transparent counts as white: it is
        brought to the model's ``image_shape``, and to [0, 1]. Whether strokes are light or dark is not.

        Raises:
            SettingError: naming the file, if it is no image.
        """
        return predict_file(self, path)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self, self.optimizer_factory, self.optimizer_factories)
        for group in optimizer.param_groups:
            if group.get("precision") == "auto":  # Muon's: the config of a run then says what it ran in
                bfloat16 = str(self.trainer.precision).startswith("bf16")
                group["precision"] = "bfloat16" if bfloat16 else "float32"
        if self.scheduler_factory is None:
            return optimizer
        scheduler = build_schedule(self.scheduler_factory, optimizer)
        if awaits_length(scheduler):
            scheduler.total_steps = self._training_length()
        config = {"scheduler": scheduler, "interval": self.lr_interval}
        if (metric := watched_metric(scheduler)) is not None:
            config["monitor"] = metric
        if not is_overridden("lr_scheduler_step", self):
            try_schedule(scheduler, watches=metric is not None)
        return {"optimizer": optimizer, "lr_scheduler": config}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.constrain_()

    def constrain_(self) -> None:
        """Bring parameters back to where they may be, in place; called after every step of the optimiser.

        Here those of :class:`~lightning_attractors.models.NonexpansiveStages`, wherever they are in the
        model. A family that does so at intervals has its own hook, such as SANODE's ``keep_stable_``.
        """
        for part in self.modules():
            if isinstance(part, NonexpansiveStages):
                part.constrain_()

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
        checkpoint["class_names"] = self.class_names

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        written_by = checkpoint.get("model_class", type(self).__name__)
        if written_by != type(self).__name__:
            raise SettingError("ckpt_path", written_by, f"must be a checkpoint of {type(self).__name__}")
        self.class_names = [str(name) for name in checkpoint.get("class_names") or self.class_names]
        for name, _ in self.named_parameters():
            value = checkpoint["state_dict"].get(name)
            if value is not None and not bool(value.isfinite().all()):
                raise SettingError("ckpt_path", f"a checkpoint whose {name} is not finite", "must be finite")
        ours = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                raise SettingError(
                    "ckpt_path",
                    f"{name} of shape {theirs.get(name)}",
                    f"this {type(self).__name__} needs shape {ours.get(name)}; use the config that made it",
                )
