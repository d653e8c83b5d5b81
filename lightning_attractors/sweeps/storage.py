"""Where a study is kept: a database, or a file that is only ever appended to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from lightning_attractors.errors import SettingError, one_line, require

_BUSY = 30  # seconds in which another process may keep an SQLite file for itself


@contextlib.contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """Have what goes wrong with a storage said in one line.

    Raises:
        SettingError: naming the storage.
    """
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause: BaseException = error
        while isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        problem = one_line(cause)[:200]
        raise SettingError(
            "storage", storage, f"cannot be used ({problem}); trials so far are kept"
        ) from error


def open_storage(storage: str, make: bool = True) -> Any:
    """Optuna's storage of a URL, or of a journal file for anything that is no URL.

    Args:
        storage: the URL or path.
        make: whether to make what there is not yet.

    Raises:
        SettingError: if there is no driver for it, or the file cannot be used.
    """
    file = Path(storage.removeprefix("sqlite:///")) if storage.startswith("sqlite:///") else None
    file = Path(storage) if "://" not in storage else file
    if file is not None:
        require(make or file.is_file(), "storage", storage, "is not there: no trial has been run")
        require(file.parent.is_dir(), "storage", storage, "must be in a folder that is there")
        require(not file.is_dir(), "storage", storage, "must be a file: there is a folder of that name")
    try:
        if "://" not in storage:
            return optuna.storages.JournalStorage(JournalFileBackend(storage))
        busy = {"connect_args": {"timeout": _BUSY}} if file is not None else {}
        return optuna.storages.get_storage(_made_by_one(lambda: optuna.storages.RDBStorage(storage, busy)))
    except ImportError as error:
        raise SettingError("storage", storage, f"needs a driver ({error.__cause__ or error})") from error
    except OSError as error:
        raise SettingError("storage", storage, f"cannot be used ({error.strerror})") from error


def _made_by_one(make: Callable[[], Any]) -> Any:
    """Another process may be making the tables at the same time: then they are there at the next attempt."""
    for wait in (0.2, 1.0):
        try:
            return make()
        except (SQLAlchemyError, StorageInternalError) as error:
            if "locked" in str(error):  # it has waited already
                raise
        time.sleep(wait)
    return make()
