"""The subcommand ``sweep``: a study of many trials, of which this process takes its share."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningCLI

from lightning_attractors.cli.command_line import AttractorsCLI
from lightning_attractors.cli.config_files import with_bases
from lightning_attractors.cli.refusals import Beginning
from lightning_attractors.cli.runs import check_writable, configured_loggers, log_root
from lightning_attractors.cli.settings import check_settings
from lightning_attractors.cli.sweep_parser import sweep_parser
from lightning_attractors.errors import require
from lightning_attractors.extras import load_extra
from lightning_attractors.shipped import shipped_config

if TYPE_CHECKING:  # it loads what is an extra
    from lightning_attractors.sweeps import Plan, Report, Settled, Space, Value


def sweep(arguments: list[str], beginning: Beginning) -> None:
    """Run the subcommand: take trials until all are finished, and report.

    Args:
        arguments: those after ``sweep``.
        beginning: takes back the study's folder if nothing comes of it.

    Raises:
        SettingError: naming the argument that cannot work.
    """
    given = sweep_parser().parse_args(arguments)
    optuna = load_extra("optuna", "sweep", given.study or given.config)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    from lightning_attractors import sweeps

    require((given.trials or 0) >= 0, "trials", given.trials, "must be at least 0")
    fit = _Fit(given.config, _study_name(given.study or f"{Path(given.config).stem}_sweep"))
    beginning.watch(fit.folder)
    storage = given.storage or f"sqlite:///{fit.folder / 'study.db'}"
    if given.trials == 0:
        with sweeps.storage_errors(storage):
            _report(fit, *sweeps.read_settled(fit.study, sweeps.open_storage(storage, make=False)))
        return
    require(given.space is not None, "space", None, "must be given: a file that says what is varied")
    plan = _plan(given, sweeps.read_space(given.space))
    trials = _count(plan, given.trials)
    fit.check(plan.space)
    check_writable(fit.folder)
    with sweeps.storage_errors(storage):
        study = sweeps.SharedStudy(fit.study, sweeps.open_storage(storage), plan, trials)
        filters = sweeps.SharedFilters(fit.folder, fit.resolve)
        study.work(sweeps.TrialRun(fit.folder, filters=filters), _teller(study))
        _report(fit, plan.in_words(), study.settled())


def _study_name(name: str) -> str:
    parts = PurePath(name).parts
    require(len(parts) == 1 and parts[0] not in ("..", "."), "study", name, "must be the name of a folder")
    return name


def _plan(given: Namespace, space: Space) -> Plan:
    from lightning_attractors.sweeps import Plan, usual_direction

    path = shipped_config(given.config, "config", Path()) or Path(given.config)
    parts = [
        Path(part).read_text(encoding="utf-8") if part == str(path) else part for part in with_bases(path)
    ]
    return Plan(
        config=given.config,
        content=hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16],
        space=space,
        sampler=given.sampler,
        metric=given.metric,
        direction=given.direction or usual_direction(given.metric),
        prune=given.prune,
        seed=given.seed,
    )


def _count(plan: Plan, trials: int | None) -> int:
    """The number of trials, of which a grid has no more than points."""
    points = plan.size()
    require(trials is not None or points is not None, "trials", None, "must be given: how many in all")
    return min(number for number in (trials, points) if number is not None)


class _Fit:
    """``fit`` with the config of a study: what its command line may be, and where its runs go."""

    def __init__(self, config: str, study: str) -> None:
        self.study = study
        self._always = ["fit", "--config", config, f"--trainer.logger.name={study}"]
        with _command_line(self._always):
            self._cli = _Parsed(Beginning())
        trainer = self._cli.config.fit.trainer
        valid = "must be one logger with a folder of its own, for trials have theirs in it"
        require(len(configured_loggers(trainer)) == 1, "trainer.logger", trainer.logger, valid)
        self.folder = log_root(trainer)

    def check(self, space: Space) -> None:
        """See that the command line takes every setting of a space, from end to end.

        Raises:
            UsageError: if it does not, with what was probably meant.
            SettingError: if it never could.
        """
        for key, varied in space.items():
            for value in varied.extremes():
                check_settings(self._parsed({key: value}).fit)

    def resolve(self, point: Mapping[str, Value]) -> dict[str, Any]:
        """All settings of a trial, by their names."""
        dumped = self._cli._parser("fit").dump(self._parsed(point).fit, skip_none=False)
        config: dict[str, Any] = yaml.safe_load(dumped)
        return config

    def _parsed(self, point: Mapping[str, Value]) -> Namespace:
        from lightning_attractors.sweeps import flags

        return self._cli.parser.parse_args([*self._always, *flags(point)])


class _Parsed(AttractorsCLI):
    """The command line of ``fit`` that makes nothing of what it is told."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"fit": LightningCLI.subcommands()["fit"]}

    def before_instantiate_classes(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def _set_seed(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Have ``sys.argv`` be that of a run, which Lightning reads."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before


def _teller(study: Any) -> Callable[[Settled], None]:
    """Prints a line for each trial that this process has settled."""
    from lightning_attractors.sweeps import in_words

    def tell(trial: Settled) -> None:
        told = trial.error or (
            trial.state if trial.value is None else f"{study.plan.metric} {trial.value:.6g}"
        )
        done = len(study.settled())
        print(f"trial {trial.slot}: {told}  ({in_words(trial)})  {done} of {study.trials} done", flush=True)

    return tell


def _report(fit: _Fit, plan: str, trials: list[Settled]) -> None:
    """Write the tables and pictures of a study, and say what is best."""
    from lightning_attractors.sweeps import Report, in_words, write_report

    content = json.loads(plan)
    minimize = content["direction"] == "minimize"
    report: Report = Report(fit.study, content["metric"], minimize, list(content["space"]), trials)
    written = write_report(report, fit.folder)
    print(f"study {fit.study}: {report.count()}")
    if report.best is not None:
        folder = report.best.found.get("folder")
        print(f"best: {report.metric} {report.best.value:.6g} of trial {report.best.slot} in {folder}")
        print(f"with: {in_words(report.best)}")
    print("\n".join(map(str, written)))
