"""Configs that go by their names, from wherever one is."""

import shutil
import sys
from pathlib import Path

import pytest
from command_line import HELPERS, refused, run
from resolved import name, resolved, write

from lightning_attractors.cli.config_files import with_bases
from lightning_attractors.shipped import shipped_configs

SHIPPED = HELPERS.parents[1] / "configs"
LETTERS = SHIPPED / "sa_node_letters.yaml"


@pytest.mark.parametrize("config", ["sa_node_letters", "cvfr_letters_stochastic"])
def test_a_name_is_that_of_the_shipped_file(config, capsys):
    assert resolved(capsys, "--config", config) == resolved(capsys, "--config", SHIPPED / f"{config}.yaml")
    assert name(capsys, f"--config={config}", subcommand="test") == config


def test_every_config_can_be_named_and_every_base_is_found():
    assert list(shipped_configs()) == sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    assert sum(len(with_bases(path)) > 1 for path in shipped_configs().values()) >= 8


def test_a_file_builds_on_a_name(capsys):
    child = write("deep/child.yaml", base="sa_node_letters", trainer={"max_epochs": 3})
    settings = resolved(capsys, "--config", child)
    assert settings["trainer"]["max_epochs"] == 3
    assert settings["data"]["init_args"]["letters"] == "ABCDE"
    assert settings["trainer"]["logger"]["init_args"]["name"] == "child"


@pytest.mark.parametrize("file", ["sa_node_letters", "sa_node_letters.yaml"])
def test_a_name_that_is_also_a_file_is_refused_and_both_can_be_written(file, capsys):
    shutil.copy(LETTERS, file)
    message = refused("fit", "--config", "sa_node_letters")
    both = f"is a shipped config, and a file here; write ./{file}, or {LETTERS}"
    assert message == f"error: config='sa_node_letters': {both}"
    for written in (f"./{file}", LETTERS):
        assert name(capsys, "--config", written) == "sa_node_letters"
    child = write("child.yaml", base="sa_node_letters")
    assert "error: base='sa_node_letters': is a shipped config, and a file here" in refused(
        "fit", "--config", child
    )


def test_a_folder_of_that_name_and_the_shipped_file_itself_are_no_other_files(capsys, monkeypatch):
    Path("sa_node_letters").mkdir()
    assert name(capsys, "--config", "sa_node_letters") == "sa_node_letters"
    monkeypatch.chdir(SHIPPED)
    assert name(capsys, "--config", "sa_node_letters") == "sa_node_letters"
    assert name(capsys, "--config", "sa_node_letters.yaml") == "sa_node_letters"


def test_a_file_of_another_name_needs_no_ending(capsys):
    shutil.copy(LETTERS, "mine")
    assert name(capsys, "--config", "mine") == "mine"


@pytest.mark.parametrize("given", ["sa_node_leters", "sa_node_letters.yaml", "configs/sa_node_letters.yaml"])
def test_what_was_probably_meant_is_named(given):
    meant = "there is no such file; did you mean the shipped sa_node_letters?"
    assert refused("fit", "--config", given) == f"error: config={given!r}: {meant}"


def test_all_are_listed_with_a_line_each(capsys):
    run("configs")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_configs())
    for line in lines:
        assert line.endswith(".")
        assert "#" not in line
    assert "error: configs: takes no arguments" in refused("configs", "mnist")


def test_listing_them_loads_no_torch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lightning_attractors.cli", None)
    run("configs")
    assert "sa_node_letters" in capsys.readouterr().out
