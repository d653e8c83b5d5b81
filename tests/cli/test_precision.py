"""``precision: auto`` and Muon through the real command line, on machines of both kinds."""

import functools
import warnings
from pathlib import Path

import pytest
import yaml
from command_line import (
    RUN,
    assert_equal_weights,
    checkpoint,
    killed_and_resumed,
    on_two_processes,
    refused_before_training,
    run,
    small,
    weights,
)

from lightning_attractors.cli import command_line
from lightning_attractors.linalg import ProductSpeed
from lightning_attractors.optim import Muon
from lightning_attractors.training import faster_precision, precision, warn_if_slow

LETTERS = [*small("sa_node_letters"), "--trainer.callbacks", "null"]
MUON = ["--model.coupling", "projected", "--model.optimizers", "{coupling: {class_path: Muon}}"]
SECONDS = {"32-true": (1e-3, 25e-3), "bf16-mixed": (3e-3, 1e-3), "a tie": (1e-3, 1e-3)}


@pytest.fixture
def on_a_machine(monkeypatch):
    """Makes the machine one on which the named precision is the faster one."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("LIGHTNING_ATTRACTORS_PRECISION", "")  # so that what runs set is taken back
    monkeypatch.setattr(precision, "has_small_products", lambda module: False)

    def of_kind(faster):
        def measure(shape, device):
            return ProductSpeed(shape, device, *SECONDS[faster])

        for function in (faster_precision, warn_if_slow):
            measured = functools.partial(function, measure=measure)
            monkeypatch.setattr(command_line, function.__name__, measured)

    return of_kind


def saved(folder=RUN, name="config.yaml"):
    return yaml.safe_load((folder / name).read_text())


def muons_precision():
    (state,) = checkpoint()["optimizer_states"]
    return state["members"][1]["param_groups"][0]["precision"]


@pytest.mark.parametrize(("faster", "muon"), [("32-true", "float32"), ("bf16-mixed", "bfloat16")])
def test_a_run_is_in_what_is_faster_and_its_saved_config_repeats_it_anywhere(faster, muon, on_a_machine):
    on_a_machine(faster)
    run("fit", *LETTERS, *MUON, "--trainer.precision", "auto")
    assert saved()["trainer"]["precision"] == faster
    assert muons_precision() == muon
    on_a_machine("bf16-mixed" if faster == "32-true" else "32-true")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run("fit", "--config", RUN / "config.yaml")
    assert_equal_weights(weights(Path("runs/test/version_1")), weights())
    slow = [str(warning.message) for warning in said if "25 times as long" in str(warning.message)]
    assert len(slow) == (faster == "bf16-mixed")
    assert all("--trainer.precision auto or 32-true" in line for line in slow)


def test_a_resumed_run_keeps_the_precision_that_it_began_with(on_a_machine):
    on_a_machine("bf16-mixed")
    settings = [*LETTERS, *MUON, "--trainer.precision", "auto"]
    run("fit", *settings)
    on_a_machine("a tie")
    run("fit", *settings, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert saved(name="config_resumed.yaml")["trainer"]["precision"] == "bf16-mixed"
    on_a_machine("32-true")
    run("fit", *settings, "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert saved(name="config_resumed.yaml")["trainer"]["precision"] == "32-true"


def test_a_killed_run_with_muon_resumes_to_the_same_weights():
    settings = [*LETTERS, *MUON, "--trainer.max_epochs", 4, "--trainer.precision", "auto"]
    killed_and_resumed(settings, 2)


def test_two_processes_choose_the_same():
    process = on_two_processes("fit", *LETTERS, *MUON, "--trainer.precision", "auto")
    assert process.stderr.count("precision auto: ") == 1
    assert saved()["trainer"]["precision"] in ("32-true", "bf16-mixed")


def test_short_names_mean_our_muon_and_any_other_optimizer():
    for name, settings in [("Muon", {}), ("torch.optim.SGD", {"lr": 0.1}), ("AdamW", {"lr": 0.1})]:
        chosen = {"coupling": {"class_path": name, "init_args": settings}}
        run("fit", *LETTERS, "--model.coupling", "projected", "--model.optimizers", yaml.safe_dump(chosen))
    paths = [
        saved(Path(f"runs/test/version_{k}"))["model"]["init_args"]["optimizers"]["coupling"]["class_path"]
        for k in range(3)
    ]
    assert paths == ["lightning_attractors.optim.Muon", "torch.optim.SGD", "torch.optim.AdamW"]
    assert Muon.__module__ == "lightning_attractors.optim.muon"


def test_torchs_muon_has_its_full_name():
    run(
        "fit", *LETTERS, "--model.coupling", "projected", "--model.optimizers", "{coupling: torch.optim.Muon}"
    )
    chosen = saved()["model"]["init_args"]["optimizers"]["coupling"]["class_path"]
    assert chosen == "torch.optim.Muon"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.optimizer", "Muon"], "optimizer='gamma': "),
        (
            [*MUON, "--model.optimizers", "{coupling: {class_path: Muon, init_args: {lr: -1}}}"],
            "lr=-1.0: must be finite and at least 0",
        ),
        (["--trainer.precision", "auto", "--trainer.accelerator", "tpu"], "precision='auto': is measured on"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(arguments, message):
    assert message in refused_before_training(*LETTERS, *arguments)
