"""``metrics.csv``: all scalars of a run in one table, whatever its loggers are."""

from __future__ import annotations

import contextlib
import csv
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_attractors.writing import csv_table, write_atomically

_INTERVAL = 10.0  # seconds between writes, each of which is of the whole file


class MetricsFile(Logger):
    """One row per step that something was logged at, one column per scalar, those of other steps empty.

    A run that goes on keeps the rows before the first step that it logs anew.

    Args:
        folder: the run's.
    """

    name = version = ""  # it has no folder below the run's

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._rows: dict[int, dict[str, Any]] | None = None
        self._written = time.monotonic()

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        step = step or 0
        if self._rows is None:
            self._rows = {old: row for old, row in self._read().items() if old < step}
        self._rows.setdefault(step, {}).update(metrics)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """They are in ``config.yaml``."""

    @rank_zero_only
    def save(self) -> None:
        if time.monotonic() - self._written > _INTERVAL:
            self._write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        # Of a run that has failed it is what failed that is to be told, such as a full disk
        with contextlib.suppress(OSError) if status == "failed" else contextlib.nullcontext():
            self._write()

    def _read(self) -> dict[int, dict[str, Any]]:
        """The rows of the file by their steps; none where there is no file of ours."""
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            return {int(row.pop("step")): {k: v for k, v in row.items() if v} for row in rows}
        except (OSError, ValueError, KeyError):
            return {}

    def _write(self) -> None:
        self._written = time.monotonic()
        if self._rows:
            names = list(dict.fromkeys(["epoch", *(name for row in self._rows.values() for name in row)]))
            rows = ([step, *(row.get(name) for name in names)] for step, row in sorted(self._rows.items()))
            write_atomically(self.path, csv_table(["step", *names], rows))
