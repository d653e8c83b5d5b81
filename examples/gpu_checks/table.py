"""What the checks find: rows of one table, in a JSON file and in Markdown, both written after every row."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_attractors.errors import one_line
from lightning_attractors.writing import write_atomically

_SIGNS = {True: "yes", False: "**no**", None: ""}


@dataclass(frozen=True)
class Row:
    """One thing that was looked at.

    Attributes:
        what: it.
        result: what was found, in words.
        passed: whether it is as it should be; None where it is a figure alone.
        values: the figures.
    """

    what: str
    result: str
    passed: bool | None = None
    values: dict[str, Any] = field(default_factory=dict)


def attempted(what: str, check: Callable[[], Row]) -> Row:
    """The row of a check, or one with its error: whatever it raises, others go on."""
    try:
        return check()
    except Exception as error:
        return Row(what, f"{type(error).__name__}: {one_line(error)}", False)


class Report:
    """The table so far.

    Args:
        folder: where ``gpu_check.json`` and ``gpu_check.md`` are written.
        machine: what the figures are from.
    """

    def __init__(self, folder: Path, machine: dict[str, Any]) -> None:
        self.folder = folder
        self.machine = machine
        self.rows: list[dict[str, Any]] = []
        self._started = time.perf_counter()

    def run(self, section: str, rows: Callable[[], Iterable[Row]]) -> None:
        """Add the rows of a section as they come; an error of it is a row, and its last one."""
        started = time.perf_counter()
        try:
            for row in rows():
                self._add(section, row, time.perf_counter() - started)
                started = time.perf_counter()
        except Exception as error:
            row = Row("all of it", f"{type(error).__name__}: {one_line(error)}", False)
            self._add(section, row, time.perf_counter() - started)

    def _add(self, section: str, row: Row, seconds: float) -> None:
        self.rows.append({"section": section, **asdict(row), "seconds": round(seconds, 2)})
        print(f"{section}: {row.what}: {row.result}", flush=True)
        self.write()

    def write(self) -> None:
        """Write both files, whole or not at all."""
        took = round(time.perf_counter() - self._started, 1)
        content = {"machine": self.machine, "seconds": took, "rows": self.rows}
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_atomically(self.folder / "gpu_check.json", text + "\n")
        write_atomically(self.folder / "gpu_check.md", self.markdown(took))

    def markdown(self, seconds: float) -> str:
        """The table, with the machine above it."""
        lines = [f"{name}: {value}  " for name, value in self.machine.items()]
        lines += [f"taken: {seconds:g} s", "", "| check | of | found | as it should be | s |"]
        lines += ["|---|---|---|---|---|"]
        for row in self.rows:
            cells = row["section"], row["what"], row["result"].replace("|", "\\|"), _SIGNS[row["passed"]]
            lines.append(f"| {' | '.join(cells)} | {row['seconds']:g} |")
        return "\n".join(lines) + "\n"
