"""A trial as a run: the very command line, in a process of its own, and what it has left."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lightning_attractors.callbacks import SweepReport
from lightning_attractors.errors import SettingError, require
from lightning_attractors.reading import UNREADABLE, read_checkpoint
from lightning_attractors.sweeps.filters import FailedRunError, SharedFilters
from lightning_attractors.sweeps.plan import usual_direction
from lightning_attractors.sweeps.space import flags
from lightning_attractors.sweeps.study import Attempt, Outcome

FIT = (sys.executable, "-m", "lightning_attractors", "fit")
_GRACE = 30.0  # seconds in which a run that is told to end may keep what it has
_DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@dataclass(frozen=True)
class TrialRun:
    """Runs trials in ``<folder>/version_<number of the trial>``; what they print is in ``<folder>/logs``.

    Attributes:
        folder: of the study.
        command: what a run's arguments are added to.
        filters: finds the filters that runs start from, where they learn some first.
    """

    folder: Path
    command: Sequence[str] = FIT
    filters: SharedFilters | None = None

    def __call__(self, attempt: Attempt) -> Outcome:
        """Run a trial to its end, or until it is hopeless.

        Raises:
            SettingError: if a metric is not logged.
            OSError: if the disk is full, of which the trial cannot be blamed.
        """
        plan, run = attempt.shared.plan, self.folder / f"version_{attempt.number}"
        found: dict[str, Any] = {"folder": str(run)}
        given = arguments(attempt, self.folder.name)
        try:
            if self.filters is not None:
                given += self.filters.of(attempt, self._run)
            if self._run(attempt, given, run.name):
                return Outcome(pruned=True, found=found)
        except FailedRunError as error:
            return Outcome(error=str(error), found=found)
        found |= results(run)
        metrics = found["metrics"]
        for setting, name in (("metric", plan.metric), ("prune", plan.prune or plan.metric)):
            require(name in metrics, setting, name, f"must be one that runs log: {', '.join(metrics)}")
        return Outcome(value=metrics[plan.metric], found=found)

    def _run(self, attempt: Attempt, given: Sequence[str], name: str) -> bool:
        """Run the command line to its end, while the trial gives signs of life; whether it is hopeless.

        Raises:
            FailedRunError: if it fails.
        """
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        here, there = Pipe()
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [*self.command, *given],
                env={**os.environ, SweepReport.channel: str(there.fileno())},
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            there.close()
            try:
                pruned = _attend(process, here, attempt)
            finally:
                _end(process)
                here.close()
        if not pruned and process.returncode:
            error = _last_line(log, process.returncode)
            _refuse_full_disk(error, self.folder)
            raise FailedRunError(error)
        return pruned


def arguments(attempt: Attempt, study: str) -> list[str]:
    """The arguments that make a run of a trial."""
    plan = attempt.shared.plan
    told = json.dumps(list(dict.fromkeys(filter(None, (plan.metric, plan.prune)))))
    return [
        *("--config", plan.config, *flags(attempt.params)),
        *(f"--trainer.logger.name={study}", f"--trainer.logger.version={attempt.number}"),
        *(f"--trainer.callbacks+={SweepReport.__name__}", f"--trainer.callbacks.metrics={told}"),
    ]


def _attend(process: subprocess.Popen[bytes], run: Connection, attempt: Attempt) -> bool:
    """Give signs of life until a run has ended, or is to be ended; whether it is hopeless."""
    prune = attempt.shared.plan.prune
    while process.poll() is None:
        attempt.is_alive()
        if not run.poll(min(1.0, attempt.shared.beat)):
            continue
        try:
            said = run.recv()
        except EOFError:  # it is at its end
            with suppress(subprocess.TimeoutExpired):
                process.wait(min(1.0, attempt.shared.beat))
            continue
        if "missing" in said:
            setting = "prune" if said["missing"] == prune else "metric"
            valid = f"must be one that is logged: {', '.join(said['logged'])}"
            raise SettingError(setting, said["missing"], valid)
        if prune is not None and prune in said["metrics"]:
            value = said["metrics"][prune]
            value = value if usual_direction(prune) == "maximize" else -value
            if math.isfinite(value) and attempt.is_hopeless(value, said["epoch"]):
                return True
        with suppress(OSError):  # it may have ended since
            run.send("go on")
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have a run ended, if it has not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_line(log: Path, status: int) -> str:
    """What a run has failed by."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error: ")]
    line = told[-1].removeprefix("error: ") if told else lines[-1].strip() if lines else ""
    return line if status > 0 and line else f"ended by signal {-status}: {line}".rstrip(": ")


def _refuse_full_disk(error: str, folder: Path) -> None:
    for number in _DISK_REFUSES:
        if os.strerror(number) in error:
            raise OSError(number, os.strerror(number), str(folder))


def results(run: Path) -> dict[str, Any]:
    """What a finished run has found: ``metrics`` by their names, ``robustness`` R by attack, ``seconds``.

    Metrics are of the checkpoint that was kept, where they were logged at its epoch, or else the last ones.

    Args:
        run: its folder.

    Raises:
        SettingError: if the folder is not that of a finished run.
    """
    try:
        found = json.loads((run / "results.json").read_text(encoding="utf-8"))
        with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise SettingError("run", str(run), f"must have results.json and metrics.csv ({error})") from error
    epoch = _epoch(found["checkpoint"])
    metrics = {name: float(value) for row in rows for name, value in row.items() if value}
    metrics |= {n: float(v) for row in rows if row["epoch"] == epoch for n, v in row.items() if v}
    fits = {name: fit for name, fit in found.get("robustness", {}).items() if fit.get("R") is not None}
    metrics |= {f"robustness/{name}/R": fit["R"] for name, fit in fits.items()}
    return {
        "metrics": {name: value for name, value in metrics.items() if name not in ("step", "epoch")},
        "robustness": {name: _brief(fit) for name, fit in fits.items()},
        "seconds": sum(found["seconds"].values()),
    }


def _brief(fit: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fit.get(name) for name in ("R", "uncertainty", "accuracy", "counts")}


def _epoch(checkpoint: str | None) -> str | None:
    """The epoch that a checkpoint was written at, as tables have it."""
    if not checkpoint:
        return None
    try:
        return str(read_checkpoint(checkpoint)["epoch"])
    except (OSError, *UNREADABLE) as error:
        raise SettingError("checkpoint", checkpoint, "must be whole") from error
