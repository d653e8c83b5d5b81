"""What is made of runs: how they end, what they leave, and what ends them."""

import json
import multiprocessing
import sys
import time
from pathlib import Path

import pytest

from lightning_attractors.errors import SettingError
from lightning_attractors.sweeps import Choice, Plan, Range, SharedStudy, TrialRun, open_storage
from lightning_attractors.sweeps.runs import arguments, results

# In place of a training: two epochs, and the files of a run. It is told what happens to it by its setting n.
STUB = """
import csv, json, os, sys, time
from multiprocessing.connection import Connection
from pathlib import Path

given = dict(word[2:].split("=", 1) for word in sys.argv[1:] if "=" in word)
what = given["n"]
sweep = Connection(int(os.environ["LIGHTNING_ATTRACTORS_SWEEP"]))
print("a training of", what, flush=True)
if what == "crash":
    sys.exit("error: dt=3: must be below 1")
if what == "traceback":
    1 / 0
if what == "disk":
    sys.exit("error: runs/s/version_0/last.ckpt: No space left on device; what was there before is whole")
if what == "killed":
    os.kill(os.getpid(), 9)
if what == "misspelt":
    sweep.send({"missing": "val/acuracy", "logged": ["val/accuracy", "val/loss"]})
    sweep.recv()
for epoch in range(2):
    try:
        sweep.send({"epoch": epoch, "metrics": {"val/accuracy": 0.1 if what == "bad" else 0.5 + epoch / 10}})
        sweep.recv()
    except (EOFError, OSError):
        Path("orphan").write_text(f"ended in epoch {epoch}")
        sys.exit(1)
    time.sleep(5 if what == "long" else 0)
run = Path("runs", given["trainer.logger.name"], "version_" + given["trainer.logger.version"])
run.mkdir(parents=True)
with (run / "metrics.csv").open("w") as file:
    csv.writer(file).writerows([["step", "epoch", "val/accuracy", "test/accuracy"], [4, 0, 0.5, ""],
                                [8, 1, 0.6, ""], [8, 2, "", 0.55]])
fit = {"R": 0.2, "uncertainty": 0.01, "accuracy": 0.55, "counts": True, "other": 3}
seconds = {"training": 1, "test": 2}
content = {"checkpoint": None, "robustness": {"pgd": fit, "fgsm": {"R": None}}, "seconds": seconds}
(run / "results.json").write_text(json.dumps(content))
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("stub.py").write_text(STUB)


def study(*values, trials=1, **settings):
    """One trial after the other, of what n says."""
    plan = Plan("c", "", {"n": Choice(values)}, "grid", **settings)
    return SharedStudy("s", open_storage("sqlite:///study.db"), plan, trials, beat=0.1, lost=1.0)


RUN = TrialRun(Path("runs/s"), (sys.executable, "stub.py"))


def test_the_arguments_are_those_of_an_ordinary_run():
    space = {
        "model.gamma": Range(2.0, 3.0, 1.0),
        "model.steps": Choice((3,)),
        "model.widths": Choice(("[1, 2]",)),
    }
    plan = Plan("kh_mnist", "", space, "grid", prune="val/loss")
    attempt = SharedStudy("s", open_storage("sqlite:///study.db"), plan, 1).take()
    assert arguments(attempt, "s") == [
        *("--config", "kh_mnist", "--model.gamma=2.0", "--model.steps=3", "--model.widths=[1, 2]"),
        *("--trainer.logger.name=s", "--trainer.logger.version=0"),
        *("--trainer.callbacks+=SweepReport", '--trainer.callbacks.metrics=["val/accuracy", "val/loss"]'),
    ]


def test_a_run_that_ends_well_is_a_trial_with_all_that_it_has_found():
    one = study("good")
    one.work(RUN, lambda trial: None)
    (trial,) = one.settled()
    assert (trial.state, trial.value) == ("complete", 0.6)
    assert trial.found == {
        "folder": "runs/s/version_0",
        "metrics": {"val/accuracy": 0.6, "test/accuracy": 0.55, "robustness/pgd/R": 0.2},
        "robustness": {"pgd": {"R": 0.2, "uncertainty": 0.01, "accuracy": 0.55, "counts": True}},
        "seconds": 3,
    }
    assert "a training of good" in Path("runs/s/logs/version_0.log").read_text()


def test_a_validation_metric_is_that_of_the_checkpoint_which_is_kept(monkeypatch):
    study("good").work(RUN, lambda trial: None)
    run = Path("runs/s/version_0")
    found = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**found, "checkpoint": "best.ckpt"}))
    monkeypatch.setattr("lightning_attractors.sweeps.runs.read_checkpoint", lambda path: {"epoch": 0})
    assert results(run)["metrics"] == {"val/accuracy": 0.5, "test/accuracy": 0.55, "robustness/pgd/R": 0.2}


def test_a_run_that_fails_is_one_trial_and_says_why():
    one = study("good", "crash", "traceback", "killed", trials=4)
    one.work(RUN, lambda trial: None)
    assert [trial.error for trial in one.settled()] == [
        None,
        "dt=3: must be below 1",
        "ZeroDivisionError: division by zero",
        "ended by signal 9: a training of killed",
    ]


def test_a_full_disk_ends_the_sweep_and_the_trial_is_free_again():
    with pytest.raises(OSError, match="No space left on device"):
        study("disk").work(RUN, pytest.fail)
    assert study("disk").settled() == []
    assert study("disk").take().params == {"n": "disk"}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"metric": "val/acuracy"},
            "^metric='val/acuracy': must be one that is logged: val/accuracy, val/loss",
        ),
        (
            {"prune": "val/acuracy"},
            "^prune='val/acuracy': must be one that is logged: val/accuracy, val/loss",
        ),
    ],
)
def test_a_metric_that_is_not_logged_ends_the_sweep_before_the_first_batch(settings, problem):
    with pytest.raises(SettingError, match=problem):
        study("misspelt", **settings).work(RUN, pytest.fail)
    assert study("misspelt", **settings).settled() == []


def test_a_metric_that_is_known_at_the_end_only_is_looked_for_there():
    with pytest.raises(SettingError, match=r"^metric='test/loss': must be one that runs log: val/accuracy"):
        study("good", metric="test/loss").work(RUN, pytest.fail)


def test_a_hopeless_run_is_ended_and_pruned():
    values = [f"good{number}" for number in range(5)]
    one = study(*values, "bad", trials=6, prune="val/accuracy")
    one.work(RUN, lambda trial: None)
    assert [trial.state for trial in one.settled()] == ["complete"] * 5 + ["pruned"]
    assert not Path("runs/s/version_5").exists()


def test_a_run_whose_sweep_is_killed_ends_with_its_epoch():
    sweep = multiprocessing.get_context("fork").Process(target=lambda: study("long").work(RUN, print))
    sweep.start()
    log, patience = Path("runs/s/logs/version_0.log"), time.monotonic() + 60
    while not (log.is_file() and log.read_text()):
        assert time.monotonic() < patience
        time.sleep(0.02)
    sweep.kill()
    sweep.join()
    while not Path("orphan").is_file():
        assert time.monotonic() < patience
        time.sleep(0.02)
    assert not Path("runs/s/version_0").exists()
