"""One process at a time trains in a run's folder."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from lightning_attractors.errors import SettingError
from lightning_attractors.writing import run_folder

if sys.platform != "win32":
    import fcntl

_LOCK = ".lock"
_held: dict[Path, int] = {}


def is_first_process() -> bool:
    """Whether this is the process of rank 0, or will be."""
    return int(rank_zero_only.rank) == 0  # type: ignore[attr-defined]


def hold(folder: Path) -> None:
    """Keep a run's folder for this process until it ends, however it ends.

    Raises:
        SettingError: if another process has it.
    """
    if sys.platform == "win32" or folder.resolve() in _held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    # Of fcntl's locks the kind that worker processes do not inherit
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = os.fstat(handle).st_nlink > 0  # else one that had it has just removed it
    except OSError as error:
        free = error.errno not in (errno.EACCES, errno.EAGAIN)  # a file system without locks
    if not free:
        os.close(handle)
        problem = "another process is training in this folder; wait until it has ended"
        raise SettingError("trainer.logger version", str(folder), problem)
    _held[folder.resolve()] = handle


def let_go() -> None:
    """Let other processes have all folders that this one holds."""
    while _held:
        folder, handle = _held.popitem()
        (folder / _LOCK).unlink(missing_ok=True)
        os.close(handle)


class OneProcess(Callback):
    """Keeps the folder of a run that trains, on rank 0."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = run_folder(trainer)
        if stage == "fit" and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            hold(folder)
