"""What ``--config`` makes of a file: its name, which is the run's, and the file that it builds on."""

from pathlib import Path

import pytest
import yaml
from command_line import CONFIGS, HELPERS, refused, run
from resolved import logger, name, resolved, write

LETTERS = CONFIGS / "sa_node_letters.yaml"
SHIPPED = HELPERS.parents[1] / "configs"


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_a_run_is_named_after_its_config_file(subcommand, capsys):
    given = logger(capsys, "--config", LETTERS, subcommand=subcommand)
    assert given["class_path"] == "lightning_attractors.cli.board.BoardLogger"
    expected = {"save_dir": "runs", "name": "sa_node_letters", "default_hp_metric": False}
    assert expected.items() <= given["init_args"].items()


def test_without_a_config_file_there_is_no_name(capsys):
    assert name(capsys, "--model", "SANODE") == ""
    assert name(capsys, "--config", "{model: {class_path: SANODE}}") == ""


def test_the_first_of_several_files_names_the_run(capsys):
    more = write("more.yaml", trainer={"max_epochs": 7})
    settings = resolved(capsys, f"--config={LETTERS}", "-c", more)
    assert settings["trainer"]["logger"]["init_args"]["name"] == "sa_node_letters"
    assert settings["trainer"]["max_epochs"] == 7
    assert name(capsys, "--config", more, "--config", LETTERS) == "more"


@pytest.mark.parametrize("given", ["other", ""])
def test_a_name_on_the_command_line_wins(given, capsys):
    assert name(capsys, "--config", LETTERS, "--trainer.logger.name", given) == given


def test_a_name_before_the_config_file_wins(capsys):
    assert name(capsys, "--trainer.logger.name", "other", "--config", LETTERS) == "other"


@pytest.mark.parametrize("given", ["other", ""])
def test_a_name_in_the_file_wins(given, capsys):
    board = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "logs", "name": given}}
    file = write("mine.yaml", model={"class_path": "SANODE"}, trainer={"logger": board})
    found = logger(capsys, "--config", file)["init_args"]
    assert (found["save_dir"], found["name"]) == ("logs", given)


@pytest.mark.parametrize("given", [True, False])
def test_a_logger_that_is_a_switch_stays_one(given, capsys):
    assert logger(capsys, "--config", LETTERS, "--trainer.logger", str(given).lower()) is given
    assert logger(capsys, "--config", write("mine.yaml", trainer={"logger": given})) is given


def test_a_run_without_a_name_on_the_command_line_is_found_again():
    run("fit", "--config", LETTERS, "--trainer.callbacks", "null")
    run("test", "--config", LETTERS, "--ckpt_path", "best")
    run("fit", "--config", "runs/sa_node_letters/version_0/config.yaml")
    run("fit", "--config", LETTERS, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["sa_node_letters"]
    resumed = Path("runs/sa_node_letters/version_1")
    assert yaml.safe_load((resumed / "config_resumed.yaml").read_text())["trainer"]["max_epochs"] == 2


def test_a_file_builds_on_another_in_its_own_folder(capsys):
    write("deep/grand.yaml", model={"class_path": "SANODE", "init_args": {"a": 0.25, "steps": 3}})
    write("deep/parent.yaml", base="grand.yaml", model={"init_args": {"steps": 4, "gamma": 0.1}})
    child = write("child.yaml", base="deep/parent.yaml", model={"init_args": {"gamma": 0.2}})
    settings = resolved(capsys, "--config", child, "--model.dt", 0.3)
    found = settings["model"]["init_args"]
    assert [found[key] for key in ("a", "steps", "gamma", "dt")] == [0.25, 4, 0.2, 0.3]
    assert settings["trainer"]["logger"]["init_args"]["name"] == "child"
    assert "base" not in settings


def test_a_file_on_a_base_is_as_the_base_and_the_file(capsys):
    rest = {"data": {"class_path": "MNISTDataModule"}, "trainer": {"callbacks": [], "max_epochs": 3}}
    write("rest.yaml", **rest)
    twin = write("twin.yaml", base=str(SHIPPED / "kh_cifar10.yaml"), **rest)
    alone = resolved(capsys, "--config", twin)
    together = resolved(capsys, "--config", SHIPPED / "kh_cifar10.yaml", "--config", "rest.yaml")
    together["trainer"]["logger"]["init_args"]["name"] = "twin"
    assert alone == together
    assert alone["data"]["class_path"] == "lightning_attractors.MNISTDataModule"
    assert alone["data"]["init_args"]["batch_size"] == 1000


def test_values_in_a_file_on_a_base_are_what_they_are_in_any_file(capsys):
    text = """
model:
  class_path: SANODE
  init_args:
    dt: 1e-3
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: .inf, weight_decay: 1e-05}}
data: {class_path: LettersDataModule, init_args: {letters: "NO"}}
"""
    Path("alone.yaml").write_text(text)
    Path("twin.yaml").write_text(f"base: {LETTERS}\n{text}")
    alone, twin = (resolved(capsys, "--config", f"{name}.yaml") for name in ("alone", "twin"))
    assert twin["model"]["init_args"]["optimizer"] == alone["model"]["init_args"]["optimizer"]
    assert twin["model"]["init_args"]["dt"] == alone["model"]["init_args"]["dt"] == 1e-3
    assert twin["data"]["init_args"]["letters"] == "NO"


def test_a_run_on_a_base_is_repeated_by_its_saved_config():
    twin = write("twin.yaml", base=str(LETTERS), trainer={"max_epochs": 2, "callbacks": None})
    run("fit", "--config", twin)
    saved = yaml.safe_load(Path("runs/twin/version_0/config.yaml").read_text())
    assert "base" not in saved
    assert saved["trainer"]["max_epochs"] == 2
    run("fit", "--config", "runs/twin/version_0/config.yaml")
    assert Path("runs/twin/version_1/checkpoints/best.ckpt").exists()


@pytest.mark.parametrize("base", ["nowhere.yaml", ".", 3, None, ["child.yaml"]])
def test_a_base_that_is_no_file_is_refused(base):
    message = refused("fit", "--config", write("child.yaml", base=base))
    assert (
        f"base={base!r}: must be a shipped config, or a file relative to the folder of child.yaml" in message
    )


def test_a_base_that_leads_back_is_refused():
    assert "base='own.yaml': must not lead back to own.yaml" in refused(
        "fit", "--config", write("own.yaml", base="own.yaml")
    )
    write("deep/second.yaml", base="../first.yaml")
    message = refused("fit", "--config", write("first.yaml", base="deep/second.yaml"))
    assert "base='../first.yaml': must not lead back to deep/second.yaml" in message


def test_mistakes_in_a_file_on_a_base_are_refused():
    twin = write("twin.yaml", base=str(LETTERS), trainer={"max_epoch": 2})
    message = refused("fit", "--config", twin)
    assert "trainer.max_epoch: there is no such setting; did you mean trainer.max_epochs?" in message
