"""What ends a run before it has begun: one line for people, and nothing left on disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import traceback
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from lightning_attractors.callbacks import CollapsedError, UnstableError
from lightning_attractors.cli.locks import hold, is_first_process
from lightning_attractors.cli.usage import UsageError
from lightning_attractors.errors import NonFiniteError, SettingError, require
from lightning_attractors.writing import run_folder

DEBUG = "LIGHTNING_ATTRACTORS_DEBUG"
_FOR_PEOPLE = (
    UsageError,
    SettingError,
    NonFiniteError,
    UnstableError,
    CollapsedError,
    MisconfigurationException,
)
_DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_LONGEST = 600  # characters of a message that was not made to be one line


class Beginning(Callback):
    """Knows whether a run has come to its first batch, and takes back the folder of one that has not."""

    def __init__(self) -> None:
        self.over = False
        self._made: Path | None = None  # the run's folder, if it is new
        self._parents: list[Path] = []  # folders above it that are new, innermost first

    def watch(self, root: Path) -> None:
        """Remember which of the folders down to ``root``, where runs have theirs, there are not yet."""
        self._parents = [folder for folder in (root, *root.parents) if not folder.exists()]

    def at(self, trainer: L.Trainer) -> None:
        """Remember the folder of the run that a trainer is for; before it is used, which makes the folder."""
        folder = run_folder(trainer)
        if trainer.is_global_zero and not folder.exists():
            self._made = folder

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See that what callbacks watch of the validation is logged there, now that it has been."""
        logged = [name for name in trainer.callback_metrics if name.startswith("val")]
        for callback in trainer.callbacks if logged else []:  # type: ignore[attr-defined]
            watched = getattr(callback, "monitor", None)
            if isinstance(callback, EarlyStopping | ModelCheckpoint) and str(watched).startswith("val"):
                where = f"{type(callback).__name__}.monitor"
                require(watched in logged, where, watched, f"must be a metric that is logged: {logged}")

    def _end(self, *args: Any, **kwargs: Any) -> None:
        self.over = True

    on_train_batch_start = on_test_batch_end = on_predict_batch_end = _end

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self.over = self.over or not trainer.sanity_checking

    def take_back(self) -> None:
        """Remove the run's folder, unless another process has made it at the same time, and empty parents."""
        if self.over or not is_first_process():
            return
        with contextlib.suppress(OSError, SettingError):
            if self._made is not None:
                hold(self._made)  # refuses if another process has it
                shutil.rmtree(self._made)
        with contextlib.suppress(OSError):
            for folder in self._parents:
                folder.rmdir()


def refusal(error: Exception, begun: bool) -> str | None:
    """The line that tells a person why a run has ended, or None where only a traceback can tell.

    Args:
        error: what ended it.
        begun: whether the run had come to its first batch. Before that, any error gets a line: settings of
            Lightning and torch are checked by raising all kinds of them.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, _FOR_PEOPLE):
        if isinstance(cause, OSError) and cause.errno in _DISK_REFUSES:
            return f"{cause.filename or 'disk'}: {cause.strerror}; what was there before is whole"
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return " ".join(str(cause).split())
    while str(error).startswith("Does not validate") and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what the parser wraps at every level
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
    of_lightning = Path(last.filename).is_relative_to(Path(L.__file__).parent / "pytorch" / "callbacks")
    if of_lightning and type(error) in (RuntimeError, ValueError):
        return text  # its callbacks say so what their settings lack
    if begun or os.environ.get(DEBUG):
        return None
    where = f"{Path(last.filename).name}, line {last.lineno}; {DEBUG}=1 shows the traceback"
    return f"{type(error).__name__}: {text} ({where})"
