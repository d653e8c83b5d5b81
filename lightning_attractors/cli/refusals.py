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
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_attractors.callbacks import CollapsedError, UnstableError
from lightning_attractors.cli.locks import is_first_process
from lightning_attractors.cli.runs import RESUMED
from lightning_attractors.cli.usage import UsageError
from lightning_attractors.errors import NonFiniteError, SettingError, one_line, require
from lightning_attractors.models import Classifier
from lightning_attractors.writing import run_folder, write_atomically

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
    """Knows whether a run has come to its first batch, and takes back the files of one that has not."""

    def __init__(self) -> None:
        self.over = False  # whether the first batch has begun
        self._lasts = False  # whether there is something to keep
        self._made: list[Path] = []  # folders that this process has made for the run
        self._parents: list[Path] = []  # those above them that are new, each before its own parent
        self._resumed: tuple[Path, set[Path], bytes | None] | None = None

    def watch(self, root: Path) -> None:
        """Remember which of the folders down to ``root``, where runs have theirs, there are not yet."""
        self._parents += [folder for folder in (root, *root.parents) if not folder.exists()]

    def resumes_in(self, run: Path) -> None:
        """Remember what there is of a run that goes on, in a folder that this process holds."""
        config = run / RESUMED
        self._resumed = run, set(run.iterdir()), config.read_bytes() if config.exists() else None

    def at(self, trainer: L.Trainer) -> None:
        """Make the folders of the run that a trainer is for, as its loggers would soon."""
        if not is_first_process():
            return
        loggers = [one for one in trainer.loggers if isinstance(one, TensorBoardLogger | CSVLogger)]
        for folder in dict.fromkeys([run_folder(trainer), *(Path(logger.log_dir) for logger in loggers)]):
            with contextlib.suppress(OSError):  # that it is there, or what loggers will say
                self.watch(folder.parent)
                folder.mkdir(parents=True)
                self._made.append(folder)

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See that what callbacks watch of the validation is logged there, now that it has been."""
        logged = [name for name in trainer.callback_metrics if name.startswith("val")]
        ours = bool(logged) and isinstance(pl_module, Classifier)  # which log all at once
        for callback in trainer.callbacks if ours else []:  # type: ignore[attr-defined]
            strict = isinstance(callback, ModelCheckpoint)
            strict = strict or (isinstance(callback, EarlyStopping) and callback.strict)
            if strict and str(callback.monitor).startswith("val"):
                where = f"{type(callback).__name__}.monitor"
                valid = f"must be a metric that is logged: {logged}"
                require(callback.monitor in logged, where, callback.monitor, valid)

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.over = True

    def _last(self, *args: Any, **kwargs: Any) -> None:
        self.over = self._lasts = True

    on_train_batch_end = on_test_batch_end = on_predict_batch_end = _last

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if not trainer.sanity_checking:
            self._last()

    def take_back(self) -> None:
        """Remove what this process has made for the run, unless something is to be kept."""
        if self._lasts or not is_first_process():
            return
        for folder in self._made:
            shutil.rmtree(folder, ignore_errors=True)
        for folder in self._parents:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if self._resumed is not None:
            run, before, config = self._resumed
            for path in set(run.iterdir()) - before:
                if path.is_file():
                    path.unlink()
            if config is not None:
                write_atomically(run / RESUMED, config)


def refusal(error: Exception, begun: bool) -> str | None:
    """The line that tells a person why a run has ended, or None where only a traceback can tell.

    Args:
        error: what ended it.
        begun: whether the run had come to its first batch. Before that, any error gets a line: settings of
            Lightning and torch are checked by raising all kinds of them. None gets one where the environment
            has ``LIGHTNING_ATTRACTORS_DEBUG``.
    """
    if os.environ.get(DEBUG):
        return None
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, _FOR_PEOPLE):
        if isinstance(cause, OSError) and cause.errno in _DISK_REFUSES:
            return f"{cause.filename or 'disk'}: {cause.strerror}; what was there before is whole"
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return one_line(cause)
    while str(error).startswith("Does not validate") and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what the parser wraps at every level
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = one_line(error)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
    of_lightning = Path(last.filename).is_relative_to(Path(L.__file__).parent / "pytorch" / "callbacks")
    if of_lightning and type(error) in (RuntimeError, ValueError):
        return text  # its callbacks say so what their settings lack
    if begun:
        return None
    where = f"{Path(last.filename).name}, line {last.lineno}; {DEBUG}=1 shows the traceback"
    return f"{type(error).__name__}: {text} ({where})"
