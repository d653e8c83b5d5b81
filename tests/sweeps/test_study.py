"""Who does which trial, when several processes work at a study and some of them are killed."""

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import optuna
import pytest

from lightning_attractors.errors import SettingError
from lightning_attractors.sweeps import (
    Choice,
    Outcome,
    Plan,
    Range,
    SharedStudy,
    open_storage,
    read_settled,
    storage_errors,
)

SPACE = {"x": Range(0.0, 1.0), "n": Range(1, 100), "kind": Choice(("a", "b"))}
GRID = {"n": Range(1, 4), "kind": Choice(("a", "b"))}


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


def shared(storage, trials=4, space=SPACE, sampler="random", beat=0.2, lost=1.5, **settings):
    plan = Plan("c", "", space, sampler, **settings)
    return SharedStudy("s", open_storage(storage), plan, trials, beat, lost)


def worth(attempt):
    return Outcome(value=float(attempt.params["n"]))


def test_every_slot_is_settled_once_and_a_second_call_has_nothing_to_do(storage):
    told, study = [], shared(storage)
    study.work(worth, told.append)
    assert [trial.slot for trial in study.settled()] == [trial.slot for trial in told] == [0, 1, 2, 3]
    assert all(trial.value == trial.params["n"] for trial in told)
    assert all(isinstance(trial.params["n"], int) for trial in told)
    shared(storage).work(pytest.fail, pytest.fail)
    shared(storage, trials=6).work(worth, told.append)
    assert [trial.slot for trial in told] == [0, 1, 2, 3, 4, 5]


def test_random_points_depend_on_seed_and_slot_alone(storage, tmp_path):
    one, other = shared(storage), shared(f"{tmp_path}/journal.log")
    one.work(worth, lambda trial: None)
    attempts = [other.take() for _ in range(4)]  # at the same time
    assert [trial.params for trial in one.settled()] == [attempt.params for attempt in attempts]
    assert len({attempt.params["x"] for attempt in attempts}) == 4


def test_a_grid_has_each_point_once_for_two_who_work_at_it(storage):
    studies = [shared(storage, 8, GRID, "grid") for _ in range(2)]
    attempts = [studies[number % 2].take() for number in range(8)]
    assert studies[0].take() is studies[1].take() is None
    for attempt in attempts:
        assert attempt.settle(worth(attempt))
    points = [(trial.params["n"], trial.params["kind"]) for trial in studies[0].settled()]
    assert points == [(n, kind) for n in (1, 2, 3, 4) for kind in ("a", "b")]


def test_two_who_take_the_same_slot_do_it_once(storage, monkeypatch):
    one, other = shared(storage, 2), shared(storage, 2)
    taken = []
    make = SharedStudy._attempt

    def overtaken(study, slot, params):  # between the look and the entry
        if study is one and not taken:
            taken.append(other.take())
        return make(study, slot, params)

    monkeypatch.setattr(SharedStudy, "_attempt", overtaken)
    assert taken == []
    assert (one.take().slot, taken[0].slot) == (1, 0)
    assert one.take() is None


def test_a_trial_without_a_sign_of_life_is_taken_up_at_its_point_and_its_late_result_is_not_taken(storage):
    paused, other = shared(storage, 1, lost=0.3), shared(storage, 1, lost=0.3)
    first = paused.take()
    assert other.take() is None
    time.sleep(0.4)
    second = other.take()
    assert second.params == first.params
    assert not first.settle(worth(first))
    assert second.settle(worth(second))
    (trial,) = other.settled()
    assert trial.number == second.number


def test_a_trial_with_signs_of_life_is_left_alone(storage):
    slow, other = shared(storage, 1, beat=0.05, lost=0.5), shared(storage, 1, lost=0.5)
    attempt = slow.take()
    for _ in range(10):
        time.sleep(0.1)
        attempt.is_alive()
        assert other.take() is None
    assert attempt.settle(worth(attempt))


def test_a_worker_that_is_ended_gives_its_trial_back_at_once(storage):
    def interrupted(attempt):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shared(storage).work(interrupted, pytest.fail)
    study = shared(storage)
    study.work(worth, lambda trial: None)
    assert [trial.slot for trial in study.settled()] == [0, 1, 2, 3]


def test_failed_and_pruned_trials_are_settled_and_say_so(storage):
    outcomes = [
        Outcome(value=1.0),
        Outcome(error="dt=3: too large"),
        Outcome(pruned=True),
        Outcome(value=float("nan")),
    ]
    study = shared(storage)
    study.work(lambda attempt: outcomes[attempt.slot], lambda trial: None)
    assert [(trial.state, trial.error) for trial in study.settled()] == [
        ("complete", None),
        ("failed", "dt=3: too large"),
        ("pruned", None),
        ("failed", "val/accuracy is nan"),
    ]


def test_a_study_that_begins_with_failures_alone_is_ended(storage):
    with pytest.raises(SettingError, match=r"its first 3 trials have all failed.*: no data$"):
        shared(storage, 10).work(lambda attempt: Outcome(error="no data"), lambda trial: None)


def test_hopeless_trials_are_those_below_the_median(storage):
    study = shared(storage, 20)
    for number in range(6):
        attempt = study.take()
        assert not attempt.is_hopeless(0.5 + number / 100, epoch=0)
        attempt.settle(Outcome(value=0.5))
    assert study.take().is_hopeless(0.4, epoch=0)
    assert not study.take().is_hopeless(0.6, epoch=0)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"space": {**SPACE, "n": Range(1, 50)}},
            r"^space=\{'n'.*50.*must be \{'n'.*100.*as in the study 's'",
        ),
        ({"sampler": "tpe"}, "^sampler='tpe': must be 'random'"),
        ({"metric": "test/accuracy"}, "^metric='test/accuracy': must be 'val/accuracy'"),
        ({"direction": "minimize"}, "^direction='minimize': must be"),
    ],
)
def test_two_sweeps_with_different_plans_do_not_share_a_study(settings, problem, storage):
    shared(storage).take()
    with pytest.raises(SettingError, match=problem):
        shared(storage, **settings)
    with pytest.raises(SettingError, match=r"^config='c': differs"):
        SharedStudy("s", open_storage(storage), Plan("c", "other", SPACE, "random"), 4)


def test_of_two_plans_that_begin_at_once_the_second_gives_way(storage):
    one, other = shared(storage), shared(storage, sampler="tpe")
    assert one.take().slot == 0
    with pytest.raises(SettingError, match="sampler='tpe': must be 'random'"):
        other.take()
    assert [one.take().slot for _ in range(3)] == [1, 2, 3]


def test_a_study_of_something_else_is_refused(storage):
    optuna.create_study(storage=storage, study_name="s", direction="maximize").ask()
    with pytest.raises(SettingError, match=r"^study='s': is none of a sweep"):
        shared(storage)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("sqlite:///nowhere/study.db", "must be in a folder that is there"),
        ("nowhere/journal.log", "must be in a folder that is there"),
        ("sqlite:////", "must be"),
        ("oracle+nothing://here/db", "cannot be used"),
        ("sqlite:///garbage", "cannot be used .*not a database"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named(name, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("garbage").write_text("this is no database, whatever its name may be" * 30)
    with pytest.raises(SettingError, match=problem) as caught, storage_errors(name):
        open_storage(name)
    assert str(caught.value).startswith("storage=")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["garbage"]


def test_a_storage_that_another_program_keeps_for_itself_is_named(storage, monkeypatch):
    shared(storage)
    monkeypatch.setattr("lightning_attractors.sweeps.storage._BUSY", 0.2)
    keeper = sqlite3.connect(storage.removeprefix("sqlite:///"))
    keeper.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SettingError, match=r"cannot be used .*database is locked"), storage_errors(storage):
        shared(storage)
    keeper.rollback()
    assert shared(storage).take().slot == 0


def test_a_study_that_is_not_there_is_not_reported(storage):
    with pytest.raises(SettingError, match="is not there: no trial has been run"):
        open_storage(storage, make=False)
    with pytest.raises(SettingError, match="study='s': is not in the storage"):
        read_settled("s", open_storage(storage))


def work_at(storage, folder, seed):
    """Takes trials that last a moment and leave a file, until all are settled."""

    def objective(attempt):
        for _ in range(3):
            time.sleep(rng.uniform(0.0, 0.06))
            attempt.is_alive()
        (Path(folder) / str(attempt.number)).write_text(f"{attempt.slot} {attempt.params['n']} whole")
        return worth(attempt)

    rng = random.Random(seed)
    shared(storage, 24).work(objective, lambda trial: None)
    os._exit(0)  # of a forked process


@pytest.mark.parametrize(("kept_in", "seed"), [("sqlite:///{}/study.db", 0), ("{}/journal.log", 0)])
def test_two_workers_one_of_which_is_killed_finish_each_trial_once(kept_in, seed, tmp_path):
    name = kept_in.format(tmp_path)
    (tmp_path / "runs").mkdir()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work_at, args=(name, tmp_path / "runs", number)) for number in range(2)]
    for worker in workers:
        worker.start()
    while len(list((tmp_path / "runs").iterdir())) < 2:
        time.sleep(0.02)
    time.sleep(random.Random(seed).uniform(0.0, 0.5))
    workers[0].kill()
    workers[0].join()
    assert workers[0].exitcode == -signal.SIGKILL
    study = shared(name, 24)
    assert len(study.settled()) < 24  # else nothing would be tested
    workers[1].join()
    assert workers[1].exitcode == 0
    settled = study.settled()
    assert [trial.slot for trial in settled] == list(range(24))
    assert {trial.state for trial in settled} == {"complete"}
    for trial in settled:
        left = (tmp_path / "runs" / str(trial.number)).read_text()
        assert left == f"{trial.slot} {trial.params['n']} whole"
        assert trial.value == trial.params["n"]
    assert shared(name, 24).take() is None
    complete = [trial for trial in study._all() if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(complete) == 24
