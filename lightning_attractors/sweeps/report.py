"""What a study has found: a table, as CSV and Markdown, and two pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_attractors.figures import write_figure
from lightning_attractors.sweeps.drawings import draw_parallel, draw_robustness
from lightning_attractors.sweeps.study import Settled
from lightning_attractors.writing import csv_table, write_atomically

_TEST = "test/accuracy"


@dataclass(frozen=True)
class Report:
    """The settled trials of a study.

    Attributes:
        study: its name.
        metric: what trials are compared by.
        minimize: whether it is to be small.
        settings: the names of the settings that are varied.
        trials: in the order of their slots.
    """

    study: str
    metric: str
    minimize: bool
    settings: list[str]
    trials: list[Settled]

    @property
    def best(self) -> Settled | None:
        """The best of the trials that are complete; of equals the first."""
        return next(iter(self.by_value()), None)

    def by_value(self) -> list[Settled]:
        """The trials that are complete, the best first."""
        complete = [(trial.value, trial) for trial in self.trials if trial.value is not None]
        sign = 1 if self.minimize else -1
        return [trial for _, trial in sorted(complete, key=lambda pair: sign * pair[0])]

    def count(self) -> str:
        """How many trials ended how, in words."""
        states = [trial.state for trial in self.trials]
        counts = {state: states.count(state) for state in ("complete", "pruned", "failed")}
        return ", ".join(f"{number} {state}" for state, number in counts.items() if number) or "no trials"

    def attacks(self) -> list[str]:
        """The attacks of which some trial has R."""
        return sorted({name for trial in self.trials for name in trial.found.get("robustness", {})})


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``trials.csv``, ``trials.md``, ``parallel`` and, where there is R, ``robustness``.

    Args:
        report: what there is.
        folder: where to.

    Returns:
        The files, of pictures the PNG.
    """
    write_atomically(folder / "trials.csv", _csv(report))
    write_atomically(folder / "trials.md", _markdown(report))
    written = [folder / "trials.csv", folder / "trials.md"]
    if report.best is not None:
        names = [*report.settings, report.metric]
        points = [[*trial.params.values(), trial.value] for trial in reversed(report.by_value())]
        write_figure(folder / "parallel", draw_parallel(report.study, names, points, report.minimize))
        written.append(folder / "parallel.png")
    if attacks := report.attacks():
        write_figure(folder / "robustness", draw_robustness(report.study, attacks, _robust(report)))
        written.append(folder / "robustness.png")
    return written


def _robust(report: Report) -> list[tuple[Any, dict[str, Any]]]:
    """The value of the first setting, by which trials are coloured, and R by attack."""
    complete = [trial for trial in report.trials if trial.value is not None]
    return [(trial.params.get(report.settings[0]), trial.found.get("robustness", {})) for trial in complete]


def _csv(report: Report) -> str:
    """One row per trial, in the order of slots; everything that is known of it."""
    logged = sorted({name for trial in report.trials for name in trial.found.get("metrics", {})})
    others = [name for name in logged if name != report.metric]
    header = [
        "trial",
        "version",
        "state",
        *report.settings,
        report.metric,
        *others,
        "seconds",
        "folder",
        "error",
    ]
    return csv_table(header, [_row(report, trial, others) for trial in report.trials])


def _row(report: Report, trial: Settled, others: Sequence[str]) -> list[Any]:
    metrics = trial.found.get("metrics", {})
    return [
        *(trial.slot, trial.number, trial.state),
        *(trial.params.get(name) for name in report.settings),
        *(trial.value, *(metrics.get(name) for name in others)),
        *(trial.found.get("seconds"), trial.found.get("folder"), trial.error),
    ]


def _markdown(report: Report) -> str:
    """The best first, and what people ask for first."""
    robust = [f"R ({attack})" for attack in report.attacks()]
    test = [_TEST] if report.metric != _TEST else []
    header = ["trial", *report.settings, report.metric, *test, *robust, "run"]
    ranked = report.by_value()
    lines = [
        f"# {report.study}",
        "",
        f"{report.count()}; the {'smallest' if report.minimize else 'largest'} {report.metric} first.",
        "",
        _line(header),
        _line(["---"] * len(header)),
        *(_line(_cells(report, trial, bool(test))) for trial in ranked),
    ]
    for trial in report.trials:
        if trial.value is None:
            why = f": {trial.error}" if trial.error else ""
            lines.append(f"\n- trial {trial.slot} {trial.state}, {in_words(trial)}{why}")
    return "\n".join(lines) + "\n"


def _cells(report: Report, trial: Settled, test: bool) -> list[str]:
    metrics, robustness = (trial.found.get(name, {}) for name in ("metrics", "robustness"))
    fits = [robustness.get(attack) for attack in report.attacks()]
    return [
        str(trial.slot),
        *(_short(trial.params.get(name)) for name in report.settings),
        _short(trial.value),
        *([_short(metrics.get(_TEST))] if test else []),
        *(f"{fit['R']:.4g} ± {fit['uncertainty']:.1g}" if fit else "" for fit in fits),
        str(trial.found.get("folder", "")),
    ]


def in_words(trial: Settled) -> str:
    """The point of a trial."""
    return ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
