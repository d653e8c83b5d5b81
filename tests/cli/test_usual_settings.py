"""What a command line without a config file does, and how the program is called in what it says."""

from pathlib import Path

import pytest
import yaml
from command_line import refused, run
from jsonargparse import Namespace

from lightning_attractors.cli.settings import EPOCHS, limit_epochs

SMALL = ["--data", "LettersDataModule", "--data.n_train", 10, "--data.n_val", 5, "--data.n_test", 5]
SMALL += ["--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", 1]
SANODE = ["--model", "SANODE", "--model.steps", 2, *SMALL]
RUN = Path("runs/version_0")


def trainer():
    return yaml.safe_load((RUN / "config.yaml").read_text())["trainer"]


def test_a_model_with_attractors_is_trained_for_a_while_certified_and_drawn():
    run("fit", *SANODE)
    assert trainer()["max_epochs"] == EPOCHS
    names = [callback["class_path"].rpartition(".")[2] for callback in trainer()["callbacks"]]
    assert names == ["StabilityCertificate", "AttractorPictures"]
    assert (RUN / "stability.json").is_file()
    assert list((RUN / "figures").glob("*.png"))


@pytest.mark.parametrize(
    "arguments",
    [
        [*SANODE, "--trainer.callbacks", "null"],
        ["--config", "{model: {class_path: SANODE, init_args: {steps: 2}}}", *SMALL],
        [
            "--model",
            "BackpropCNN",
            "--model.grid",
            2,
            "--model.kernel_size",
            3,
            "--model.pool_size",
            2,
            *SMALL,
        ],
    ],
)
def test_callbacks_that_are_spoken_of_and_other_models_are_left(arguments):
    run("fit", *arguments, "--trainer.max_epochs", 1)
    assert trainer()["callbacks"] is None
    assert trainer()["max_epochs"] == 1


@pytest.mark.parametrize(
    "limit", [{"max_epochs": -1}, {"max_epochs": 3}, {"max_steps": 5}, {"max_time": "00:00:01:00"}]
)
def test_whatever_ends_a_training_is_left(limit):
    given = Namespace(**{"max_epochs": None, "max_steps": -1, "max_time": None, **limit})
    assert not limit_epochs(given)
    assert given.max_epochs == limit.get("max_epochs")


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(("name", "ends"), [("EarlyStopping", True), ("StabilityCertificate", False)])
def test_a_callback_may_stand_without_a_list(listed, name, ends):
    callback = Namespace(class_path=f"somewhere.{name}", init_args=Namespace())
    given = Namespace(max_epochs=None, max_steps=-1, max_time=None, callbacks=callback)
    if listed:
        given.callbacks = [callback]
    assert limit_epochs(given) is not ends


@pytest.mark.parametrize(
    ("called", "named"),
    [("/here/attractors", "attractors"), ("/here/__main__.py", "python -m lightning_attractors")],
)
def test_usage_says_how_it_was_called(called, named, monkeypatch, capsys):
    from lightning_attractors.__main__ import main

    monkeypatch.setattr("sys.argv", [called, "--version"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out.startswith(f"{named} 0.")


def test_a_shell_is_told_of_commands_settings_and_classes(capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as caught:
        run("--print_completion", "bash")
    assert caught.value.code == 0
    script = capsys.readouterr().out
    for word in (
        "configs fit",
        "--trainer.max_epochs",
        "--model.coupling",
        "--data.letters",
        "sa_node_mnist",
    ):
        assert word in script
    assert "_shtab_attractors_fit___model_choices=" in script
    assert "print_completion: invalid choice: 'csh'" in refused("--print_completion", "csh")
