"""The two checkpoints of a run: the best one, and the last one for resuming."""

from __future__ import annotations

import os
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_attractors.contracts import monitored, phases_of
from lightning_attractors.errors import require


class _OwnFiles(ModelCheckpoint):
    """Keeps files under one name, and of a run that goes on takes over what is in its own folder."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over which files are the best; a file that is not in this folder now is forgotten.

        Paths are taken relative to the folder that the state names, so that a run may have moved; none of
        them leads out of this folder.
        """
        before = state_dict.get("dirpath") or ""
        self.current_score = state_dict.get("current_score")
        scores = {self._own(path, before): score for path, score in state_dict["best_k_models"].items()}
        self.best_k_models = {path: score for path, score in scores.items() if path}
        self.best_model_path = self._own(state_dict["best_model_path"], before)
        self.last_model_path = self._own(state_dict.get("last_model_path", ""), before)
        if kth := self._own(state_dict.get("kth_best_model_path", ""), before):
            self.kth_best_model_path, self.kth_value = kth, state_dict["kth_value"]
        if self.best_k_models:
            best = (min if self.mode == "min" else max)(
                self.best_k_models, key=self.best_k_models.__getitem__
            )
            self.best_model_path, self.best_model_score = best, self.best_k_models[best]

    def _own(self, path: str, before: str) -> str:
        """Where a file of the folder ``before`` is in this run's folder; an empty string if it is not."""
        name = os.path.relpath(path, before) if path else os.pardir
        own = os.path.join(self.dirpath or "", name)
        return own if not _leaves(name) and os.path.isfile(own) else ""


def _leaves(name: str) -> bool:
    """Whether a path that is relative to a folder is not one of a file in it."""
    return os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] in (os.pardir, os.curdir)


class BestCheckpoint(_OwnFiles):
    """``best.ckpt``: the weights of the best epoch by a validation metric, written at the end of epochs.

    Of epochs that are equally good the last one counts: it has been trained for longer.

    Args:
        monitor: the metric; by default what the module names in its attribute ``monitor``. Without one, or
            if the module's metric is not logged, the newest weights count as the best. Epochs in which a
            ``TwoPhaseTrainer`` learns filters do not count.
        mode: whether the ``max`` or the ``min`` of the metric is best; by default what the module says in its
            attribute ``monitor_mode``, or else ``max``. Of a ``monitor`` that is a loss it has to be given.
        filename: name of the file, without its ending; ``last`` is the other checkpoint's. Where more than
            one file is kept (``save_top_k``), a pattern with the epoch, as ``best-{epoch}``.
        **settings: as for ``lightning.pytorch.callbacks.ModelCheckpoint``.

    Raises:
        SettingError: if the file would lie outside the folder, or be ``last.ckpt``, or the same for several
            that are to be kept; if a loss has no ``mode``.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Literal["max", "min"] | None = None,
        filename: str = "best",
        **settings: Any,
    ) -> None:
        valid = "must be the name of a file in the folder of the checkpoints"
        require(not _leaves(filename), "checkpoint.filename", filename, valid)
        taken = os.path.normpath(filename).casefold() == "last"
        require(not taken, "checkpoint.filename", filename, "must not be last, the name of the newest state")
        one = settings.get("save_top_k", 1) in (0, 1) or "{" in filename
        require(one, "checkpoint.filename", filename, "must tell several apart, as best-{epoch} does")
        told = mode is not None or monitor is None or "loss" not in monitor
        require(told, "checkpoint.mode", None, f"must be min or max: which of {monitor} is best")
        super().__init__(
            monitor=monitor,
            mode=mode or "max",
            filename=filename,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            **settings,
        )
        self._chosen_by_user = monitor is not None
        self._mode_is_open = mode is None
        self._modules_own: str | None = None
        self._key = super().state_key

    @property
    def state_key(self) -> str:
        """By what was asked for: the metric in use may change, and is not known when states are read."""
        return self._key

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find the state in checkpoints that were written when it stood under the metric in use."""
        states = checkpoint["callbacks"]
        for key, state in list(states.items()):
            if key.startswith(f"{type(self).__qualname__}{{") and state["monitor"] == self._modules_own:
                states.setdefault(self.state_key, state)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._chosen_by_user:
            return
        self._modules_own, mode = monitored(pl_module)
        if self._mode_is_open and mode == "min":
            self.mode = "min"
            self.kth_value = torch.tensor(torch.inf)

    def check_monitor_top_k(self, trainer: L.Trainer, current: torch.Tensor | None = None) -> bool:
        """Whether an epoch belongs to the best: also if it is as good as the worst of those."""
        if super().check_monitor_top_k(trainer, current):
            return True
        worst = self.best_k_models.get(self.kth_best_model_path)
        ties = current is not None and worst is not None and bool(current == worst)
        return trainer.strategy.reduce_boolean_decision(ties)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        phases = phases_of(trainer)
        if phases is not None and phases.learns_filters:
            return
        if not self._chosen_by_user:
            # Decided anew: the first epochs may have no validation.
            known = self._modules_own in trainer.callback_metrics
            self.monitor = self._modules_own if known else None
        super().on_train_epoch_end(trainer, pl_module)


class LastCheckpoint(_OwnFiles):
    """``last.ckpt``: the state after the newest epoch, from which ``--ckpt_path last`` goes on."""

    def __init__(self) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
