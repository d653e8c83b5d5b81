"""The subcommand that makes a study of runs."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from command_line import CONFIGS, refused, run, weights

import lightning_attractors.sweeps.storage

CONFIG = ["sweep", "--config", CONFIGS / "sa_node_letters.yaml"]


def space(**settings):
    Path("space.yaml").write_text(yaml.safe_dump(settings))
    return [*CONFIG, "--space", "space.yaml"]


STEPS = {"model.steps": {"values": [1, 2]}}


def test_a_grid_of_real_runs_goes_on_and_shares_its_filters(capsys, monkeypatch):
    short = {
        "base": str(CONFIGS / "kh_letters.yaml"),
        "trainer": {"callbacks": None, "filter_batch_size": 20},
    }
    Path("short.yaml").write_text(yaml.safe_dump(short))
    space(**{"model.power": {"values": [2, 4]}})
    monkeypatch.setenv("PYTHONPATH", str(CONFIGS.parents[1]))
    sweep = ["sweep", "--config", "short.yaml", "--space", "space.yaml", "--sampler", "grid"]
    run(*sweep, "--trials", 1)
    assert "1 of 1 done" in capsys.readouterr().out
    run(*sweep)
    printed = capsys.readouterr().out
    assert "trial 1: val/accuracy" in printed
    assert "(model.power=4)  2 of 2 done" in printed
    assert "trial 0" not in printed.partition("study")[0]
    folder = Path("runs/short_sweep")
    (filters,) = (folder / "filters").glob("*.pt")
    assert filters.read_bytes() == (folder / "filters_0" / "filters.pt").read_bytes()
    assert not (folder / "filters_1").exists()
    learned = torch.load(filters)["filters"]
    for number, power in enumerate([2, 4]):
        trial = folder / f"version_{number}"
        config = yaml.safe_load((trial / "config.yaml").read_text())
        assert config["model"]["init_args"]["power"] == power
        assert config["model"]["init_args"]["filters_from"] == str(filters)
        assert config["trainer"]["filter_epochs"] == 0
        assert torch.equal(weights(trial, "best")["conv.weight"], learned)
        assert (trial / "results.json").is_file()
    first = (folder / "trials.csv").read_bytes()
    (folder / "trials.csv").unlink()
    run(*sweep, "--trials", 0)
    assert "best: val/accuracy" in capsys.readouterr().out
    assert (folder / "trials.csv").read_bytes() == first
    wrong = refused(*sweep, "--trials", 2, "--metric", "test/accuracy")
    assert wrong.startswith(
        "error: metric='test/accuracy': must be 'val/accuracy', as in the study 'short_sweep'"
    )


@pytest.mark.parametrize(
    ("settings", "more", "problem"),
    [
        (
            {"model.stepss": {"low": 1, "high": 2}},
            [],
            "model.stepss: there is no such setting; did you mean steps?",
        ),
        (
            {"trainer.max_epocs": {"low": 1, "high": 2}},
            [],
            "trainer.max_epocs='1': there is no such setting; did you mean trainer.max_epochs?",
        ),
        ({"model.steps": {"low": 2, "high": 1}}, [], "model.steps={'high': 1, 'low': 2}: is empty"),
        ({"model.steps": {"values": [1, "many"]}}, [], "model.steps='many': must be an integer"),
        ({"trainer.max_epochs": {"low": -5, "high": 2}}, [], "trainer.max_epochs=-5: must be at least 0"),
        (STEPS, ["--metric", "val/loss", "--direction", "up"], "direction='up': must be one of"),
        (STEPS, ["--sampler", "best"], "sampler='best': must be one of"),
        (STEPS, ["--trials", -1], "trials=-1: must be at least 0"),
        (STEPS, ["--trials", 0], "storage='sqlite:///runs/sa_node_letters_sweep/study.db': is not there"),
        (STEPS, ["--seed", -1], "seed=-1: must be at least 0"),
        (STEPS, ["--study", "../up"], "study='../up': must be the name of a folder"),
        (
            STEPS,
            ["--storage", "sqlite:///nowhere/study.db"],
            "storage='sqlite:///nowhere/study.db': must be in a",
        ),
        (STEPS, ["--model.steps", 3], "model.steps='3': there is no such setting"),
    ],
)
def test_what_cannot_work_is_said_in_one_line_and_leaves_nothing(settings, more, problem):
    line = refused(*space(**settings), "--trials", 1, *more)
    assert line.startswith(f"error: {problem}")
    assert [path.name for path in Path().rglob("*")] == ["space.yaml"]


def test_what_is_missing_is_said(monkeypatch):
    assert refused("sweep") == "error: config: must be given"
    assert refused(*CONFIG, "--trials", 3).startswith("error: space=None: must be given")
    assert refused(*space(**STEPS)).startswith("error: trials=None: must be given")
    assert refused("sweep", "--config", "kh_mnits", "--trials", 3).endswith(
        "did you mean the shipped kh_mnist?"
    )
    monkeypatch.setitem(sys.modules, "optuna", None)
    install = "needs optuna: pip install 'lightning-attractors[sweep]'"
    assert refused(*space(**STEPS)) == f"error: sweep={str(CONFIG[2])!r}: {install}"


def test_a_full_disk_at_the_storage_is_said(monkeypatch):
    def full(*arguments, **settings):
        raise lightning_attractors.sweeps.storage.StorageInternalError("database or disk is full")

    monkeypatch.setattr("optuna.storages.RDBStorage", full)
    line = refused(*space(**STEPS), "--trials", 1)
    assert line.endswith("cannot be used (database or disk is full); trials so far are kept")


@pytest.mark.parametrize("arguments", [("--help",), ("sweep", "--help")])
def test_help_knows_of_it(arguments, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    text = " ".join(capsys.readouterr().out.split())
    assert "Try many settings of a config, by several processes if need be" in text
