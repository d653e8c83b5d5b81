"""The first of a training's two phases, once for all trials that have it in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lightning_attractors.callbacks import SweepReport
from lightning_attractors.sweeps.space import Point, flags
from lightning_attractors.sweeps.study import Attempt
from lightning_attractors.writing import write_atomically

# What filters do not depend on. A setting that is not listed counts as one that they do.
_OF_CLASSIFIER = {
    "optimizer",
    "optimizers",
    "lr_scheduler",
    "lr_interval",
    "activation",
    "power",
    "filters_from",
}
_OF_TRAINER = {
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "feature_cache_gb"),
    *("callbacks", "logger", "log_every_n_steps", "check_val_every_n_epoch", "val_check_interval"),
    *("limit_val_batches", "limit_test_batches", "limit_predict_batches", "num_sanity_val_steps"),
    *("enable_progress_bar", "enable_model_summary", "gradient_clip_val", "gradient_clip_algorithm"),
}
# Of the run that learns filters, whose classifier is of no use. It ends with the sweep, as trials do.
_SHORT = (
    "--trainer.max_epochs=1",
    f'--trainer.callbacks=[{{"class_path": "{SweepReport.__name__}", "init_args": {{"metrics": []}}}}]',
)
_PAUSE = 1.0  # seconds between looks at whether another process has learned them

Runs = Callable[[Attempt, Sequence[str], str], bool]


class FailedRunError(Exception):
    """A run has failed, by what the message says."""


@dataclass(frozen=True)
class SharedFilters:
    """Filters by what they depend on, each learned by the first trial that needs them.

    Attributes:
        folder: of the study; files are in ``filters`` there.
        resolve: gives the whole config of ``fit`` at a point.
    """

    folder: Path
    resolve: Callable[[Point], Mapping[str, Any]]

    def of(self, attempt: Attempt, run: Runs) -> list[str]:
        """The arguments that have a trial start from its filters; none where it learns none, or has some.

        Args:
            attempt: the trial, which shows signs of life while it waits.
            run: runs ``fit`` with arguments, under a name.

        Raises:
            FailedRunError: if the filters cannot be learned.
        """
        config = self.resolve(attempt.params)
        name = key(config)
        if name is None:
            return []
        file = self.folder / "filters" / f"{name}.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_suffix(".lock"))
        while not file.is_file():
            try:
                with lock.acquire(timeout=_PAUSE):
                    if not file.is_file():
                        self._learn(attempt, file, run)
            except Timeout:
                attempt.is_alive()
        return ["--trainer.filter_epochs=0", f"--model.filters_from={file}"]

    def _learn(self, attempt: Attempt, file: Path, run: Runs) -> None:
        version = f"filters_{attempt.number}"
        given = ["--config", attempt.shared.plan.config, *flags(attempt.params)]
        given += [f"--trainer.logger.name={self.folder.name}", f"--trainer.logger.version={version}"]
        run(attempt, [*given, *_SHORT], version)
        write_atomically(file, (self.folder / version / "filters.pt").read_bytes())


def key(config: Mapping[str, Any]) -> str | None:
    """What the filters of a run depend on, in short, or None where it learns none.

    Args:
        config: the whole config of ``fit``.
    """
    trainer, model = config["trainer"], config["model"]
    settings = model.get("init_args") or {}
    if not trainer.get("filter_epochs") or settings.get("filters_from"):
        return None
    parts = {
        "seed": config.get("seed_everything"),
        "class": model["class_path"],
        "model": {name: value for name, value in settings.items() if name not in _OF_CLASSIFIER},
        "data": config.get("data"),
        "trainer": {name: value for name, value in trainer.items() if name not in _OF_TRAINER},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
