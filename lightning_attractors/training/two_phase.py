"""One fit in two phases: filters that learn by a rule of their own, then a classifier on top of them."""

from __future__ import annotations

import math
import sys
from typing import Any, get_args

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping

from lightning_attractors.contracts import (
    FilterPhase,
    FilterPrecision,
    batch_size_of,
    filter_learner,
    frozen_part,
    phase_of,
)
from lightning_attractors.errors import require
from lightning_attractors.training.feature_cache import FeatureCache
from lightning_attractors.training.precision import TrainerPrecision, faster_precision
from lightning_attractors.writing import run_folder


class TwoPhaseTrainer(L.Trainer):
    """A ``Trainer`` that can begin with epochs in which a module's filters learn without labels.

    Both phases are one ``fit`` with one series of epochs, steps, logs and checkpoints, so that ``ckpt_path``
    resumes in the right one. Epochs 0 to ``filter_epochs`` − 1 are the filter phase: the module moves its
    filters itself, nothing is validated, learning-rate schedulers wait and no checkpoint counts as the best.
    Then ``max_epochs`` classifier epochs follow, which are Lightning's own in everything. At the end of the
    filter phase the filters are saved as ``filters.pt`` in the run's folder, unless checkpoints are off.

    Without ``filter_epochs`` and ``feature_cache_gb`` it is a plain ``Trainer``.

    A module that learns filters is a :class:`~lightning_attractors.contracts.LearnsFilters`: it has an
    attribute ``filter_phase``, which this trainer sets to a
    :class:`~lightning_attractors.contracts.FilterPhase` or None, a method ``save_filters(path)`` and, for the
    cache, what :class:`~lightning_attractors.training.feature_cache.FeatureCache` asks for. A data module
    that takes part has an attribute ``batch_size`` and, where ``filter_batch_size`` differs from it, takes
    the batch size from ``trainer.train_batch_size`` unless that is None.

    ``EarlyStopping`` needs ``check_on_train_epoch_end=False`` here, since filter epochs have no metrics.

    Args:
        filter_epochs: epochs of the filter phase, at least 0.
        filter_batch_size: training images per batch and process in the filter phase, at least 1; by default
            the data module's.
        filter_precision: ``32-true``, ``16-mixed`` or ``bf16-mixed`` in the filter phase; by default as
            ``precision``.
        patch_fraction: share of the positions in images whose patches learn, drawn afresh for every batch,
            in (0, 1].
        feature_cache_gb: memory, per process, in which features of the training images may be kept during
            the classifier phase, at least 0.
        precision: as for ``lightning.Trainer``, or ``auto`` for
            :func:`~lightning_attractors.training.faster_precision`.
        **settings: as for ``lightning.Trainer``; of these, ``max_epochs``, ``min_epochs`` and ``max_steps``
            count the classifier phase only. The trainer's attributes of that name count both phases.

    Raises:
        SettingError: here, if a setting lies outside its range; in ``fit``, if the module learns no filters
            or the data module takes no part.
    """

    def __init__(
        self,
        *,
        filter_epochs: int = 0,
        filter_batch_size: int | None = None,
        filter_precision: FilterPrecision | None = None,
        patch_fraction: float = 1.0,
        feature_cache_gb: float = 0.0,
        precision: TrainerPrecision | None = None,
        **settings: Any,
    ) -> None:
        require(filter_epochs >= 0, "filter_epochs", filter_epochs, "must be at least 0")
        valid = filter_batch_size is None or filter_batch_size >= 1
        require(valid, "filter_batch_size", filter_batch_size, "must be at least 1")
        precisions = list(get_args(FilterPrecision))
        valid = filter_precision is None or filter_precision in precisions
        require(valid, "filter_precision", filter_precision, f"must be one of {precisions}")
        require(0 < patch_fraction <= 1, "patch_fraction", patch_fraction, "must be above 0 and at most 1")
        require(feature_cache_gb >= 0, "feature_cache_gb", feature_cache_gb, "must be at least 0")
        self.filter_epochs = filter_epochs
        if precision == "auto":
            precision = faster_precision(accelerator=settings.get("accelerator", "auto"))
        super().__init__(precision=precision, **settings)
        if self.fast_dev_run:  # type: ignore[attr-defined]
            self.filter_epochs = min(filter_epochs, 1)
        self.filter_batch_size = filter_batch_size
        self.filter_phase = FilterPhase(self.filter_epochs, patch_fraction, filter_precision)
        self.classifier_steps = self.fit_loop.epoch_loop.max_steps
        if self.filter_epochs:
            if self.fit_loop.max_epochs != -1:
                self.fit_loop.max_epochs = (self.fit_loop.max_epochs or 0) + self.filter_epochs
            if self.fit_loop.min_epochs:
                self.fit_loop.min_epochs += self.filter_epochs
        if self.filter_epochs or feature_cache_gb:
            self.callbacks.insert(0, _Phases(FeatureCache(feature_cache_gb)))  # type: ignore[attr-defined]

    @property
    def learns_filters(self) -> bool:
        """Whether the present epoch belongs to the filter phase."""
        return self.current_epoch < self.filter_epochs

    @property
    def train_batch_size(self) -> int | None:
        """The batch size that training loaders should have now; None for the data module's own."""
        return self.filter_batch_size if self.learns_filters else None

    @property
    def classifier_epochs(self) -> int:
        """The length of the classifier phase; −1 if there is no limit."""
        total = -1 if self.max_epochs is None else self.max_epochs
        return total if total == -1 else total - self.filter_epochs

    @property
    def estimated_stepping_batches(self) -> int | float:
        """Optimizer steps of the classifier phase, for learning-rate schedulers."""
        if self.filter_epochs == 0:
            return super().estimated_stepping_batches
        unlimited = self.classifier_steps == -1
        limit = math.inf if unlimited else self.classifier_steps
        if self.classifier_epochs == -1:
            return limit
        return min(self.classifier_epochs * self.steps_per_epoch(), limit)

    def steps_per_epoch(self, batch_size: int | None = None) -> int:
        """Optimizer steps of an epoch with that batch size per process; by default the data module's."""
        data: Any = self.datamodule  # type: ignore[attr-defined]
        total = len(data.train_dataloader().dataset)
        batches = math.ceil(total / ((batch_size or data.batch_size) * self.world_size))
        limit = self.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        return math.ceil(batches / self.accumulate_grad_batches)

    @property
    def enable_validation(self) -> bool:
        """Whether there is validation, which is never of a model whose filters are still learning."""
        return super().enable_validation and phase_of(self.lightning_module) is None

    @property
    def reload_dataloaders_every_n_epochs(self) -> int:
        """Lightning asks before each epoch: batches of the first classifier epoch have another size."""
        if self.filter_epochs and self.current_epoch == self.filter_epochs:
            return 1
        return self._reload_every_n_epochs

    @reload_dataloaders_every_n_epochs.setter
    def reload_dataloaders_every_n_epochs(self, value: int) -> None:
        self._reload_every_n_epochs = value


class _Phases(Callback):
    """Tells the module, the schedulers and the cache which phase it is."""

    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache
        self._frequencies: dict[int, tuple[Any, int]] = {}  # scheduler configs by their id, and how often

    def setup(self, trainer: Any, pl_module: L.LightningModule, stage: str) -> None:
        epochs, steps = trainer.filter_epochs, trainer.classifier_steps
        if stage == "fit" and self.cache.budget_gb:
            frozen_part(pl_module)  # refuses one that does not take images
        if stage != "fit" or epochs == 0:
            return
        for callback in trainer.callbacks:
            if isinstance(callback, EarlyStopping):
                own = callback._check_on_train_epoch_end
                valid = "must be false with filter_epochs: no metric is logged in them"
                require(own is False, "EarlyStopping.check_on_train_epoch_end", own, valid)
        name = type(pl_module).__name__
        learns = filter_learner(pl_module) is not None
        require(learns, "filter_epochs", epochs, f"must be 0: {name} learns none")
        takes_part = batch_size_of(trainer.datamodule) is not None
        require(takes_part, "filter_epochs", epochs, "needs a data module that has a batch_size")
        if steps != -1:
            per_epoch = trainer.steps_per_epoch(trainer.filter_batch_size)
            trainer.fit_loop.epoch_loop.max_steps = steps + epochs * per_epoch

    def on_fit_start(self, trainer: Any, pl_module: L.LightningModule) -> None:
        self._frequencies = {}

    def on_train_start(self, trainer: Any, pl_module: L.LightningModule) -> None:
        # A run that is resumed within an epoch does not start it again.
        self.on_train_epoch_start(trainer, pl_module)
        wanted = trainer.train_batch_size
        served = batch_size_of(trainer.train_dataloader)
        problem = f"the data module serves {served}: it must ask for trainer.train_batch_size"
        require(wanted in (None, served), "filter_batch_size", wanted, problem)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.filter_epochs:
            pl_module.filter_phase = trainer.filter_phase if trainer.learns_filters else None
        for config in trainer.lr_scheduler_configs:  # callbacks may have added some
            _, frequency = self._frequencies.setdefault(id(config), (config, config.frequency))
            # A frequency that no count reaches: a scheduler that waits.
            config.frequency = sys.maxsize if trainer.learns_filters else frequency
        if not trainer.learns_filters:
            # A run that is resumed from the last step of the filter phase never saw the end of that epoch.
            self._save_filters(trainer, pl_module, missing=True)
            self.cache.fill(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == trainer.filter_epochs - 1:
            self._save_filters(trainer, pl_module)

    def _save_filters(self, trainer: Any, pl_module: Any, missing: bool = False) -> None:
        if trainer.filter_epochs and trainer.checkpoint_callbacks and not trainer.fast_dev_run:
            path = run_folder(trainer) / "filters.pt"
            if trainer.is_global_zero and not (missing and path.exists()):
                pl_module.save_filters(path)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if phase_of(pl_module) is not None:
            pl_module.filter_phase = None
        self.cache.clear()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)
