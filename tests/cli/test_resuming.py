"""Runs that are killed and resumed, of every family, end with the weights of runs that were not."""

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from accidents import held_by_another
from command_line import RUN, checkpoint, killed_and_resumed, refused, run, small, table_of

from lightning_attractors.dynamics import Monotone
from lightning_attractors.models import NMODE, NonexpansiveNet

BY_STEP = ["--trainer.max_epochs", 4, "--model.lr_scheduler", "OneCycle", "--model.lr_interval", "step"]
CONV = (
    "{class_path: ConvBackbone, init_args: {in_channels: 1, channels: [2], kernel_sizes: [3], strides: [2]}}"
)


def rebuild(kind):
    """The model of the run's best checkpoint, which classifies."""
    model = kind.load_from_checkpoint(RUN / "checkpoints" / "best.ckpt", map_location="cpu")
    assert model(torch.rand(2, 1, 7, 7)).shape == (2, 5)
    return model


@pytest.mark.parametrize(
    ("config", "scheduler"),
    [
        ("sa_node_letters", "OneCycle"),
        ("sa_node_letters", "torch.optim.lr_scheduler.ExponentialLR"),
        ("cvfr_letters", "OneCycle"),
    ],
    ids=["by step", "by epoch", "with noise"],
)
def test_a_killed_run_resumes_to_the_same_weights(config, scheduler):
    by_epoch = "Exponential" in scheduler
    settings = [
        *small(config),
        *("--model.coupling", "projected", "--trainer.max_epochs", 4),
        *("--model.lr_scheduler", scheduler, "--model.lr_interval", "epoch" if by_epoch else "step"),
        *(["--model.lr_scheduler.gamma", 0.5] if by_epoch else []),
        *("--model.optimizers", "{coupling: {class_path: torch.optim.Muon, init_args: {lr: 0.1}}}"),
    ]
    killed_and_resumed(settings, 2)


@pytest.mark.parametrize(
    "settings",
    [
        ["--model.trades", "{steps: 2}"],
        ["--model.intervals", "{epsilon: 0.02, warmup: 1, ramp: 2}", "--model.backbone", CONV],
    ],
    ids=["TRADES", "intervals"],
)
def test_a_killed_nmode_run_resumes_to_the_same_weights(settings):
    resumed = killed_and_resumed([*small("nmode_letters"), *BY_STEP, *settings], 2)
    assert resumed["layer.linear.weight"].abs().max() <= 0.2001
    rebuilt = rebuild(NMODE)
    assert (rebuilt.trades is None) == ("--model.trades" not in settings)


@pytest.mark.parametrize("activation", ["LeakyReLU", "torch.nn.ReLU6"], ids=["by name", "module"])
def test_a_killed_nonexpansive_run_resumes_to_the_same_weights(activation):
    named = "." not in activation
    chosen = ["--model.activation" if named else "--model.activation.class_path", activation]
    killed_and_resumed([*small("nonexpansive_letters"), *BY_STEP, *chosen, "--model.lipschitz", 1], 2)
    functions = [part.function for part in rebuild(NonexpansiveNet).modules() if isinstance(part, Monotone)]
    assert functions
    assert {type(function).__name__ for function in functions} == {activation.rpartition(".")[2]}


LETTERS = [*small("sa_node_letters"), "--trainer.callbacks", "null"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--model.optimizer.lr", 0.5], "model.optimizer.lr=0.5: must be 0.001, as in runs/test/version_0"),
        (["--model.optimizer", "SGD"], "model.optimizer='torch.optim.SGD': must be 'torch.optim.Adam'"),
        (["--model.optimizers", "{gamma: torch.optim.SGD}"], "model.optimizers={'gamma': "),
        (["--model.lr_scheduler", "OneCycle"], "OneCycle': must be None"),
        (
            ["--model.dt", 0.2, "--model.gamma", 0.3],
            "model.gamma=0.3: must be 0.4, as in runs/test/version_0, ",
        ),
        (["--model.dt", 0.2, "--model.gamma", 0.3], "goes on; model.dt too: 0.2, not 0.1; a run with other"),
        (["--data.letters", "ABC"], "data.letters='ABC': must be 'ABCDE'"),
        (["--data.seed", 3], "data.seed=3: must be 0"),
        (["--seed_everything", 3], "seed_everything=3: must be 0"),
        (["--checkpoint.monitor", "val/loss"], "checkpoint.monitor='val/loss': must be None"),
        (["--trainer.gradient_clip_val", 0.1], "trainer.gradient_clip_val=0.1: must be None"),
    ],
)
def test_other_settings_are_named_and_refused(settings, message):
    run("fit", *LETTERS)
    saved = (RUN / "config.yaml").read_text()
    for path in ("last", RUN / "checkpoints" / "last.ckpt"):
        assert message in refused("fit", *LETTERS, *settings, "--trainer.max_epochs", 2, "--ckpt_path", path)
    assert (RUN / "config.yaml").read_text() == saved
    assert not (RUN / "config_resumed.yaml").exists()
    assert checkpoint()["epoch"] == 0


def test_limits_callbacks_precision_and_where_things_are_may_change():
    run("fit", *LETTERS)
    run(
        *("fit", *LETTERS, "--ckpt_path", "last", "--trainer.max_epochs", 3),
        *("--trainer.callbacks", "StabilityCertificate", "--trainer.precision", "bf16-mixed"),
        *("--data.eval_batch_size", 5),
    )
    assert checkpoint()["epoch"] == 2


def test_an_evaluation_says_which_settings_are_not_the_runs(capsys):
    run("fit", *LETTERS)
    run("test", *LETTERS, "--ckpt_path", "best")
    assert "not the run's" not in capsys.readouterr().out
    run("test", *LETTERS, "--ckpt_path", "best", "--model.dt", 0.05, "--data.letters", "ABCDF")
    shown = "model.dt=0.05 (trained with 0.1), data.letters='ABCDF' (trained with 'ABCDE')"
    assert f"settings that are not the run's: {shown}\n" in capsys.readouterr().out


def test_a_config_of_an_older_version_that_lacks_a_setting_is_no_difference():
    run("fit", *LETTERS)
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    del config["model"]["init_args"]["eval_steps"], config["checkpoint"]["filename"]
    config["model"]["init_args"]["gone"] = 3
    (RUN / "config.yaml").write_text(yaml.safe_dump(config))
    run("fit", *LETTERS, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert checkpoint()["epoch"] == 1


def test_a_config_that_names_our_classes_by_other_paths_is_no_difference():
    run("fit", *LETTERS)
    saved = (RUN / "config.yaml").read_text()
    assert "lightning_attractors.SANODE" in saved
    for name, room in (("SANODE", "models"), ("LettersDataModule", "data")):
        saved = saved.replace(f"lightning_attractors.{name}", f"lightning_attractors.{room}.{name}")
    (RUN / "config.yaml").write_text(saved)
    run("fit", *LETTERS, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert checkpoint()["epoch"] == 1
    assert "model='CVFR': must be 'SANODE'" in refused(
        "fit", *small("cvfr_letters"), "--ckpt_path", RUN / "checkpoints" / "last.ckpt"
    )


def test_a_file_has_its_runs_precision():
    run("fit", *LETTERS, "--trainer.precision", "bf16-mixed")
    path = RUN / "checkpoints" / "last.ckpt"
    run("fit", *LETTERS, "--trainer.precision", "auto", "--ckpt_path", path, "--trainer.max_epochs", 2)
    saved = yaml.safe_load(Path("runs/test/version_1/config.yaml").read_text())
    assert saved["trainer"]["precision"] == "bf16-mixed"


@pytest.mark.parametrize("kind", ["Muon", "SGD"])
def test_a_state_of_another_optimiser_is_refused(kind):
    other = ["--model.coupling", "projected", "--model.optimizers"]
    run("fit", *LETTERS, *other, "{coupling: {class_path: torch.optim.Adam}}")
    shutil.copy(RUN / "checkpoints" / "last.ckpt", "alone.ckpt")
    settings = [*other, f"{{coupling: {{class_path: torch.optim.{kind}}}}}", "--ckpt_path", "alone.ckpt"]
    message = refused("fit", *LETTERS, *settings, "--trainer.max_epochs", 2)
    assert "differs from the checkpoint's, whose state has amsgrad, betas, " in message


def test_the_newest_run_is_gone_on_with_or_refused():
    run("fit", *LETTERS)
    run("fit", *LETTERS, "--model.gamma", 0.3)
    shutil.rmtree("runs/test/version_1/checkpoints")
    message = refused("fit", *LETTERS, "--ckpt_path", "last")
    assert "runs/test/version_1, has no last checkpoint" in message
    run("test", *LETTERS, "--ckpt_path", RUN / "checkpoints" / "best.ckpt")
    assert "runs/test/version_1, has no best checkpoint" in refused("test", *LETTERS, "--ckpt_path", "best")
    run("fit", *LETTERS, "--ckpt_path", "last", "--trainer.logger.version", 0, "--trainer.max_epochs", 2)
    assert checkpoint()["epoch"] == 1


def test_a_run_is_named_by_its_own_config():
    run("fit", *LETTERS)
    run("fit", *LETTERS)
    run("test", "--config", RUN / "config.yaml", "--ckpt_path", "best")
    assert (RUN / "test" / "results.json").is_file()
    run("fit", "--config", RUN / "config.yaml", "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert checkpoint()["epoch"] == 1
    run("test", *LETTERS, "--ckpt_path", "best")
    assert Path("runs/test/version_1/test/results.json").is_file()


def test_two_processes_do_not_go_on_with_one_run():
    run("fit", *LETTERS)
    with held_by_another(RUN):
        message = refused("fit", *LETTERS, "--ckpt_path", "last", "--trainer.max_epochs", 2)
        assert "another process is training in this folder" in message
    run("fit", *LETTERS, "--ckpt_path", "last", "--trainer.max_epochs", 2)


def test_a_finished_run_that_goes_on_tests_its_best(capsys):
    # which falls: the first epoch is the best one
    settings = ["--checkpoint.monitor", "val/loss", "--checkpoint.mode", "max", "--trainer.max_epochs", 6]
    run("fit", *LETTERS, *settings)
    before = checkpoint(name="best")
    assert before["epoch"] < 5
    capsys.readouterr()
    run("fit", *LETTERS, *settings, "--ckpt_path", "last")
    assert table_of(capsys.readouterr().out)["best checkpoint"] == f"{RUN}/checkpoints/best.ckpt"
    assert checkpoint(name="best")["epoch"] == before["epoch"]


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(monkeypatch):
    run("fit", *LETTERS)
    content = (RUN / "checkpoints" / "last.ckpt").read_bytes()

    synchronise = os.fsync

    def full(handle):
        if "checkpoints" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(28, "No space left on device")
        synchronise(handle)

    monkeypatch.setattr("os.fsync", full)
    message = refused("fit", *LETTERS, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert message.endswith(".ckpt: No space left on device; what was there before is whole")
    assert (RUN / "checkpoints" / "last.ckpt").read_bytes() == content
    assert sorted(path.name for path in (RUN / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_checkpoints_with_other_names_in_other_folders_are_found(capsys):
    named = ["--checkpoint.dirpath", "kept", "--checkpoint.filename", "at-{epoch}"]
    run("fit", *LETTERS, *named, "--trainer.max_epochs", 2)
    (best,) = Path("kept").iterdir()
    assert table_of(capsys.readouterr().out)["best checkpoint"] == str(best)
    run("test", *LETTERS, "--ckpt_path", "best")
    assert f"weights: {best}\n" in capsys.readouterr().out
    run("fit", *LETTERS, *named, "--trainer.max_epochs", 3, "--ckpt_path", "last")
    assert len(list(Path("kept").iterdir())) == 1
    assert "model.gamma=0.3: must be" in refused(
        "fit", *LETTERS, *named, "--ckpt_path", "best", "--model.gamma", 0.3
    )


class Payload:
    def __reduce__(self):
        return open, ("ran", "w")


def test_a_path_in_a_checkpoint_brings_no_code(capsys):
    curve = "[{class_path: RobustnessCurve, init_args: {attacks: [fgsm_radius], masking: false}}]"
    run("fit", *LETTERS, "--trainer.callbacks", curve)
    evil = str(Path("evil.ckpt").resolve())
    torch.save({**checkpoint(name="best"), "payload": Payload()}, evil)
    torch.load(evil, weights_only=False)
    Path("ran").unlink()
    content = checkpoint()
    for state in content["callbacks"].values():
        if "best_model_path" in state:
            state.update(best_model_path=evil, best_k_models={evil: torch.tensor(9.0)})
            state.update(kth_best_model_path=evil, dirpath=str(Path.cwd()))
    torch.save(content, RUN / "checkpoints" / "last.ckpt")
    run("fit", *LETTERS, "--trainer.callbacks", curve, "--ckpt_path", "last", "--trainer.max_epochs", 1)
    run("fit", *LETTERS, "--trainer.callbacks", curve, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    message = refused("test", *LETTERS, "--ckpt_path", evil)
    assert "brings types of its own (io.open); only if you trust the file: --weights_only false" in message
    assert not Path("ran").exists()
    run("test", *LETTERS, "--ckpt_path", evil, "--weights_only", "false")
    assert Path("ran").exists()


@pytest.mark.parametrize("name", ["last", "./last", "../best", "/tmp/best", "x/../../y"])
def test_a_name_that_is_taken_or_lies_elsewhere_is_refused(name):
    assert f"checkpoint.filename='{name}': must" in refused("fit", *LETTERS, "--checkpoint.filename", name)


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_weights_that_nobody_has_trained_are_used_only_on_request(subcommand, capsys):
    message = refused(subcommand, *LETTERS)
    assert "ckpt_path=None: must be last, best or a file, or untrained" in message
    run(subcommand, *LETTERS, "--ckpt_path", "untrained")
    assert "weights: those that training would begin with" in capsys.readouterr().out
