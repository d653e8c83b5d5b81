"""Where a run's files go, and files that are whole or not there at all."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

_ASIDE = ".part"


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file whole or not at all: aside in the same folder first, to the disk, then renamed into place.

    Whenever the process or the machine stops, the file is the old one or the new one.

    Raises:
        OSError: naming the file, if it cannot be written; then it is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_ASIDE)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException as error:
        Path(aside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    _sync_folder(path.parent)


def remove_asides(folder: Path) -> None:
    """Remove what writes that were killed have left anywhere in a folder that nobody else writes to."""
    for aside in folder.rglob(f".*{_ASIDE}"):
        aside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk; where folders cannot be opened, the system does it in time."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def csv_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The content of a CSV file."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(header)
    writer.writerows(rows)
    return table.getvalue()


class HasFolder(Protocol):
    """What of a Lightning trainer says where its files go."""

    @property
    def log_dir(self) -> str | None:
        """The logger's folder."""

    @property
    def default_root_dir(self) -> str:
        """The root folder."""


def run_folder(trainer: HasFolder) -> Path:
    """The folder that holds everything this run leaves.

    It is the logger's folder, or the trainer's root folder without a logger. Call it on every rank: finding
    it out is a collective operation.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)
