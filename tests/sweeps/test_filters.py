"""Filters are learned once for all trials that have in common what they depend on, by whoever comes first."""

import copy
import threading
import time

import pytest

from lightning_attractors.sweeps import Choice, Plan, SharedFilters, SharedStudy, open_storage
from lightning_attractors.sweeps.filters import key

CONFIG = {
    "seed_everything": 0,
    "model": {"class_path": "KrotovHopfield", "init_args": {"grid": 3, "power": 4, "filters_from": None}},
    "data": {"class_path": "LettersDataModule", "init_args": {"n_train": 20}},
    "trainer": {"filter_epochs": 2, "max_epochs": 3, "devices": 1, "callbacks": None},
}


def changed(where, name, value):
    config = copy.deepcopy(CONFIG)
    place = config if where is None else config[where]
    place = place.get("init_args", place)
    place[name] = value
    return config


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [("model", "power", 6), ("model", "optimizer", {}), ("trainer", "max_epochs", 9)],
)
def test_filters_do_not_depend_on_the_classifier(where, name, value):
    assert key(changed(where, name, value)) == key(CONFIG)


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (None, "seed_everything", 1),
        ("model", "grid", 4),
        ("model", "something_new", 1),
        ("data", "n_train", 21),
        ("trainer", "filter_epochs", 3),
        ("trainer", "devices", 2),
    ],
)
def test_filters_depend_on_everything_else(where, name, value):
    assert key(changed(where, name, value)) != key(CONFIG)


def test_trainings_without_a_filter_phase_have_none_to_share():
    assert key(changed("trainer", "filter_epochs", 0)) is None
    assert key(changed("model", "filters_from", "filters.pt")) is None


def test_they_are_learned_once_by_two_who_need_them_at_once(tmp_path):
    plan = Plan("c", "", {"n": Choice((1, 2))}, "grid")
    study = SharedStudy("s", open_storage(f"sqlite:///{tmp_path}/study.db"), plan, 2)
    learned, given = [], []

    def run(attempt, arguments, name):
        learned.append(name)
        time.sleep(0.3)
        (tmp_path / name).mkdir()
        (tmp_path / name / "filters.pt").write_bytes(b"filters")
        return False

    def take_part(attempt):
        given.append(SharedFilters(tmp_path, lambda point: CONFIG).of(attempt, run))

    trials = [threading.Thread(target=take_part, args=(study.take(),)) for _ in range(2)]
    for trial in trials:
        trial.start()
    for trial in trials:
        trial.join()
    assert len(learned) == 1
    file = tmp_path / "filters" / f"{key(CONFIG)}.pt"
    assert given == [["--trainer.filter_epochs=0", f"--model.filters_from={file}"]] * 2
    assert file.read_bytes() == b"filters"
