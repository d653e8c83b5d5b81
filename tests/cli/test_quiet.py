"""What a run prints and logs: what concerns it, and no more."""

import logging
import re
import warnings
from pathlib import Path

import pytest
from command_line import run, small
from torch import nn

from lightning_attractors.cli.quiet import parameter_line

LETTERS = small("sa_node_letters")
LOGGED = r"Seed set to \d+|GPU available: .*|`Trainer\.fit` stopped: .*|Restored all states from .*"
LOGGED += r"|nmODE: .*|(no )?feature cache: .*|stability  test  certified .*"


@pytest.fixture
def logged():
    """What Lightning logs."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.mark.parametrize("config", ["sa_node_letters", "nmode_letters", "kh_letters"])
def test_nothing_is_logged_that_does_not_concern_the_run(config, logged, capsys):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run("fit", *small(config))
        run(
            "fit",
            *small(config),
            "--ckpt_path",
            "last",
            "--trainer.max_epochs",
            2,
            "--trainer.callbacks",
            "null",
        )
        for subcommand in ("validate", "test", "predict"):
            run(subcommand, *small(config), "--ckpt_path", "best")
    noise = [line for line in logged if not re.fullmatch(LOGGED, line)]
    assert not noise
    assert sum(line.startswith("Restored all states") for line in logged) == 1
    ours = (UserWarning, RuntimeWarning)
    assert not [warning for warning in caught if issubclass(warning.category, ours)]
    out = capsys.readouterr().out
    assert "FLOPs" not in out
    assert out.count("weights: runs/test/version_0/checkpoints/best.ckpt") == 3


def test_what_a_model_learns_is_one_line(capsys):
    run("fit", *LETTERS)
    assert "SANODE: 2.2 K parameters (gamma 1, coupling 2.2 K)\n" in capsys.readouterr().out
    run("fit", *LETTERS, "--trainer.enable_model_summary", "false")
    assert "parameters" not in capsys.readouterr().out
    run("fit", *LETTERS, "--trainer.callbacks+", "RichModelSummary")
    out = capsys.readouterr().out
    assert "Total params" in out
    assert "SANODE: " not in out


def test_parts_without_parameters_are_not_named():
    model = nn.ModuleDict({"body": nn.Linear(9, 100), "act": nn.ReLU(), "head": nn.LazyLinear(3)})
    assert parameter_line(model) == "ModuleDict: 1.0 K parameters (body 1.0 K, head 0)"
    assert parameter_line(nn.ReLU()) == "ReLU: 0 parameters"


@pytest.mark.parametrize("columns", ["40", "200"])
def test_no_width_breaks_a_path(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    folder = Path("runs") / ("long" * 12) / "version_0"
    run("fit", *LETTERS, "--trainer.logger.name", folder.parent.name)
    lines = capsys.readouterr().out.splitlines()
    for path in (folder, folder / "config.yaml", folder / "checkpoints" / "best.ckpt"):
        assert any(line.endswith(f"  {path}") for line in lines)
    table = [line for line in lines if line.startswith(("┌", "│", "└"))]
    assert table
    assert max(map(len, table)) <= int(columns)
