"""A study that several processes on several machines work at, so that each of its trials is finished once.

Optuna keeps the trials and chooses their points; who does which trial is decided here, since its storages do
not say so exactly. A study has slots 0, 1, 2, … of which each is to be settled once. Who takes a slot adds a
trial to the study that names it. Storages number trials in the order in which they are added, whoever adds
them, so that all see the same *holder* of a slot: the first of its trials that has not been given up. One
that finds another one before it gives its own up, and so does everyone for the trial of a process that shows
no sign of life any more; what that process may yet say of it is not taken.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_attractors.errors import SettingError, require
from lightning_attractors.sweeps.plan import Plan
from lightning_attractors.sweeps.space import Point

BEAT = 10.0  # seconds between the signs of life of a trial
LOST = 90.0  # seconds without one after which a trial is lost
_HOPELESS = 3  # trials that fail before any other, after which the config or the space is taken to be wrong
# Attributes of trials. Only one that failed by itself has an error.
_SLOT, _PLAN, _BEAT, _ERROR, _FOUND = "slot", "plan", "beat", "error", "found"
_GIVEN_UP = RuntimeError  # what storages raise of a trial that is finished; Optuna 5 has a kind of it
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Outcome:
    """How a trial has ended.

    Attributes:
        value: the metric of a trial that is complete, finite; else None.
        pruned: whether it was ended early.
        error: what it failed by, in one line, or None.
        found: what else is known of it, as for a table; JSON.
    """

    value: float | None = None
    pruned: bool = False
    error: str | None = None
    found: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settled:
    """A slot that is settled, with the trial that has done it."""

    slot: int
    number: int
    state: Literal["complete", "pruned", "failed"]
    params: Point
    value: float | None
    error: str | None
    found: dict[str, Any]


class SharedStudy:
    """The trials of a plan.

    Args:
        name: of the study in the storage.
        storage: of :func:`~lightning_attractors.sweeps.open_storage`.
        plan: what is swept.
        trials: the number of slots, at least 1.
        beat: seconds between signs of life.
        lost: seconds without one after which a trial counts as lost, several times ``beat``.

    Raises:
        SettingError: if the study has another plan.
    """

    def __init__(
        self, name: str, storage: Any, plan: Plan, trials: int, beat: float = BEAT, lost: float = LOST
    ) -> None:
        self.name, self.plan, self.trials, self.beat, self.lost = name, plan, trials, beat, lost
        self._grid = plan.points(trials)
        self._seen: dict[int, tuple[int, float]] = {}  # the last sign of life of trials, and when it was new
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=plan.direction,
            pruner=optuna.pruners.MedianPruner(),
            load_if_exists=True,
        )
        self._storage = self._study._storage
        self._require_own_plan(self._all())
        direction = self._study.direction.name.lower()
        require(
            direction == plan.direction, "direction", plan.direction, f"must be {direction}, as in {name!r}"
        )

    def work(self, objective: Callable[[Attempt], Outcome], done: Callable[[Settled], None]) -> None:
        """Take trials until all slots are settled, by this process or by others.

        Args:
            objective: runs a trial, and says from time to time that it is alive.
            done: is told of each trial that this process has settled.
        """
        while len(self.settled()) < self.trials:
            attempt = self.take()
            if attempt is None:
                time.sleep(min(self.beat, 2.0))  # others are at work at what is left
                continue
            try:
                outcome = objective(attempt)
            except BaseException:
                with contextlib.suppress(Exception):  # what has happened is what is to be told
                    attempt.give_up()
                raise
            if attempt.settle(outcome):
                self._require_hope()
                done(next(one for one in self.settled() if one.number == attempt.number))

    def settled(self) -> list[Settled]:
        """The slots that are settled, in their order."""
        return _settled(self._all(), self.trials)

    def _require_hope(self) -> None:
        """End a study of failures alone: its config is at fault, or its space, and not the points."""
        settled = self.settled()
        if len(settled) >= _HOPELESS and all(trial.error is not None for trial in settled):
            problem = f"its first {len(settled)} trials have all failed, the last one so: {settled[-1].error}"
            raise SettingError("study", self.name, problem)

    def take(self) -> Attempt | None:
        """A trial of a free slot for this process, or None where there is none at present."""
        while True:
            trials = self._all()
            if self._give_up_lost(trials):
                continue
            held = _holders(trials)
            slot = next((slot for slot in range(self.trials) if slot not in held), None)
            if slot is None:
                return None
            before = [trial.params for trial in trials if trial.user_attrs.get(_SLOT) == slot]
            attempt = self._attempt(slot, next(filter(None, reversed(before)), {}))
            trials = self._all()
            try:
                self._require_own_plan(trials)
            except SettingError:
                attempt.give_up()
                raise
            holder = _holders(trials).get(slot)
            if holder is not None and holder.number == attempt.number:
                attempt.choose()
                return attempt
            attempt.give_up()

    def _attempt(self, slot: int, params: Point) -> Attempt:
        """A new trial of a slot, at its point of the grid, or where an attempt before has been."""
        fixed = self._grid[slot] if self._grid is not None else params
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            user_attrs={_SLOT: slot, _PLAN: self.plan.in_words(), _BEAT: 0},
            system_attrs={"fixed_params": fixed},
        )
        identity = self._storage.create_new_trial(self._study._study_id, template)
        self._study.sampler = self._sampler(slot)
        return Attempt(self, self._study, identity, slot)

    def _sampler(self, slot: int) -> Any:
        """Seeded by the slot: who works at it, and how many others do, makes no difference by itself."""
        seed = int(np.random.SeedSequence((self.plan.seed, slot)).generate_state(1)[0])
        if self.plan.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return optuna.samplers.RandomSampler(seed=seed)

    def _give_up_lost(self, trials: list[FrozenTrial]) -> bool:
        """Give up the trials that have shown no sign of life for too long, as seen from here."""
        now, found = time.monotonic(), False
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            beat = trial.user_attrs.get(_BEAT, 0)
            count, since = self._seen.get(trial.number, (None, now))
            if count != beat:
                self._seen[trial.number] = beat, now
            elif now - since > self.lost:
                found = True
                _end(self._storage, trial._trial_id, TrialState.FAIL)
        return found

    def _require_own_plan(self, trials: list[FrozenTrial]) -> None:
        """All plans of a study are that of its first trial."""
        if trials:
            self.plan.require_same(trials[0].user_attrs.get(_PLAN), self.name)

    def _all(self) -> list[FrozenTrial]:
        return sorted(self._study.get_trials(deepcopy=False), key=lambda trial: trial.number)


class Attempt:
    """A trial that this process holds."""

    def __init__(self, shared: SharedStudy, study: optuna.Study, identity: int, slot: int) -> None:
        self.shared, self.slot = shared, slot
        self._storage, self._identity = study._storage, identity
        self._trial = optuna.trial.Trial(study, identity)
        self.number: int = self._trial.number
        self.params: Point = {}
        self._beats, self._last = 0, time.monotonic()

    def choose(self) -> None:
        """Have the sampler choose the point."""
        self.params = {
            key: varied.suggest(self._trial, key) for key, varied in self.shared.plan.space.items()
        }

    def is_alive(self) -> None:
        """Give a sign of life, if it is time for one."""
        if time.monotonic() - self._last >= self.shared.beat:
            self._beats, self._last = self._beats + 1, time.monotonic()
            with contextlib.suppress(_GIVEN_UP):
                self._storage.set_trial_user_attr(self._identity, _BEAT, self._beats)

    def is_hopeless(self, value: float, epoch: int) -> bool:
        """Whether the median of the others at that epoch is better; the value is large where it is good."""
        with contextlib.suppress(_GIVEN_UP):
            self._trial.report(value if self.shared.plan.direction == "maximize" else -value, epoch)
        return self._trial.should_prune()

    def settle(self, outcome: Outcome) -> bool:
        """Finish the trial; False if others have given it up before, and it is theirs."""
        state = TrialState.PRUNED if outcome.pruned else TrialState.COMPLETE
        value = math.nan if outcome.value is None else outcome.value
        error = outcome.error
        if error is None and not outcome.pruned and not math.isfinite(value):
            error = f"{self.shared.plan.metric} is {value}"
        try:
            self._storage.set_trial_user_attr(self._identity, _FOUND, outcome.found)
            if error is not None:
                state = TrialState.FAIL
                self._storage.set_trial_user_attr(self._identity, _ERROR, error)
        except _GIVEN_UP:
            return False
        return _end(self._storage, self._identity, state, [value] if state == TrialState.COMPLETE else None)

    def give_up(self) -> None:
        """Leave the slot to others."""
        _end(self._storage, self._identity, TrialState.FAIL)


def read_settled(name: str, storage: Any) -> tuple[str, list[Settled]]:
    """The plan of a study, in words, and the slots that are settled.

    Raises:
        SettingError: if there is no study of that name, or no trial in it.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        raise SettingError("study", name, "is not in the storage") from error
    trials = sorted(study.get_trials(deepcopy=False), key=lambda trial: trial.number)
    if not trials or _PLAN not in trials[0].user_attrs:
        raise SettingError("study", name, "has no trials of a sweep")
    return str(trials[0].user_attrs[_PLAN]), _settled(trials, len(trials))


def _holders(trials: list[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The trial that holds a slot, of all slots that one does."""
    held: dict[int, FrozenTrial] = {}
    for trial in trials:
        given_up = trial.state == TrialState.FAIL and _ERROR not in trial.user_attrs
        if not given_up and _SLOT in trial.user_attrs:
            held.setdefault(trial.user_attrs[_SLOT], trial)
    return held


def _settled(trials: list[FrozenTrial], count: int) -> list[Settled]:
    words: dict[TrialState, Literal["complete", "pruned", "failed"]] = dict(
        zip(_FINISHED, ("complete", "pruned", "failed"), strict=True)
    )
    return [
        Settled(
            slot,
            trial.number,
            words[trial.state],
            dict(trial.params),
            trial.values[0] if trial.state == TrialState.COMPLETE else None,
            trial.user_attrs.get(_ERROR),
            trial.user_attrs.get(_FOUND, {}),
        )
        for slot, trial in sorted(_holders(trials).items())
        if trial.state in _FINISHED and slot < count
    ]


def _end(storage: Any, identity: int, state: TrialState, values: list[float] | None = None) -> bool:
    """Whether the trial was still open."""
    try:
        storage.set_trial_state_values(identity, state, values)
    except _GIVEN_UP:
        return False
    return True
