"""Every model × data pair through the real command line, and what a run leaves and may be told."""

import json
from pathlib import Path

import pytest
import torch
from command_line import CONFIGS, RUN, assert_equal_weights, checkpoint, refused, run, small, weights
from data_files import write_all
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_attractors.models import NMODE, SANODE

PAIRS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
LETTERS = small("sa_node_letters")


@pytest.mark.parametrize("pair", PAIRS)
def test_every_pair_trains_and_is_tested(pair, capsys):
    write_all()
    run("fit", *small(pair))
    assert "test accuracy" in capsys.readouterr().out
    assert sorted(path.name for path in (RUN / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert (RUN / "config.yaml").exists()


def test_a_run_leaves_everything_in_one_folder(capsys):
    run("fit", *LETTERS)
    assert sorted(path.name for path in Path().iterdir()) == ["runs"]
    left = {path.name.split(".")[0] for path in RUN.iterdir()}
    assert left == {
        "checkpoints",
        "config",
        "events",
        "figures",
        "hparams",
        "metrics",
        "results",
        "stability",
    }
    report = json.loads((RUN / "stability.json").read_text())
    assert report["equilibria"] == 5
    assert report["stage"] == "test"
    tags = [EventAccumulator(str(path)).Reload().Tags() for path in RUN.glob("events*")]
    names = {name for tag in tags for name in tag["scalars"]}
    assert {"train/loss", "val/accuracy", "stability/abscissa"} <= names
    assert not [name for name in names if name == "epoch" or name.startswith("test/")]
    images = {name for tag in tags for name in tag["images"]}
    read = ["1_strip", "2_trajectories", "3_attractors", "4_spectra", "5_eigenvalues", "6_mse_over_time"]
    assert sorted(images) == [f"attractors/{name}" for name in read]
    pages = [name for tag in tags for name in tag["tensors"] if name.startswith("report/")]
    told = ["1_what_was_run", "2_results", "3_words"]
    assert sorted(pages) == [f"report/{name}/text_summary" for name in told]
    table = capsys.readouterr().out
    said = ["attractor accuracy H", "overlap m_f", "5/5, worst eigenvalue -", "training time", "tensorboard"]
    assert all(words in table for words in said)


def test_class_names_alone_are_enough():
    classes = ["--model", "SANODE", "--data", "LettersDataModule"]
    short = ["--model.steps", 2, "--data.n_train", 10, "--trainer.max_epochs", 1]
    run("fit", *classes, *short, "--trainer.accelerator", "cpu")
    assert Path("runs/version_0/checkpoints/best.ckpt").exists()


def test_a_strangers_module_and_data_run_as_they_are(capsys):
    stranger = ["--model", "strangers.Net", "--data", "strangers.Data", "--trainer.accelerator", "cpu"]
    run("fit", *stranger, "--trainer.max_epochs", 1)
    checkpoints = Path("runs/version_0/checkpoints")
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    run("predict", *stranger, "--ckpt_path", "best")
    assert "no predictions.csv" in capsys.readouterr().out
    message = refused("fit", *stranger, "--trainer.max_epochs", 1, "--checkpoint.monitor", "beauty")
    assert "beauty" in message
    assert "quality" in message


@pytest.mark.parametrize("logger", ["false", "true", "CSVLogger"])
def test_runs_with_other_loggers_are_found_again(logger):
    settings = [*LETTERS, "--trainer.logger", logger]
    settings += ["--trainer.logger.save_dir", "logs"] if logger == "CSVLogger" else []
    run("fit", *settings)
    run("fit", *settings)
    run("fit", *settings, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    newest = max(Path().rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    assert torch.load(newest, weights_only=False)["epoch"] == 1


def test_a_development_run_leaves_nothing():
    run("fit", *LETTERS, "--trainer.fast_dev_run", "true")
    assert not [path for path in Path().rglob("*") if path.is_file()]


def test_callbacks_and_checkpoints_can_be_switched_off():
    run("fit", *LETTERS, "--trainer.callbacks", "null", "--trainer.enable_checkpointing", "false")
    assert not (RUN / "checkpoints").exists()
    assert not (RUN / "stability.json").exists()


def test_the_config_can_be_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        run("fit", *LETTERS, "--print_config")
    assert caught.value.code == 0
    assert "class_path: lightning_attractors.SANODE" in capsys.readouterr().out


def test_a_saved_config_repeats_its_run():
    run("fit", *LETTERS)
    run("fit", "--config", RUN / "config.yaml")
    assert_equal_weights(weights(Path("runs/test/version_1")), weights())


def test_a_trained_model_is_validated_and_tested(capsys):
    run("fit", *LETTERS)
    for subcommand in ("validate", "test"):
        run(subcommand, *LETTERS, "--ckpt_path", "best")
        assert "accuracy" in capsys.readouterr().out


def test_a_checkpoint_rebuilds_its_model():
    run("fit", *LETTERS)
    model = SANODE.load_from_checkpoint(RUN / "checkpoints" / "best.ckpt", map_location="cpu")
    assert model.hparams["num_classes"] == 5
    assert model(torch.rand(2, 1, 7, 7)).shape == (2, 5)


def test_a_checkpoint_rebuilds_its_backbone():
    write_all()
    run("fit", *small("sa_node_cifar10_head"))
    model = SANODE.load_from_checkpoint(RUN / "checkpoints" / "last.ckpt", map_location="cpu")
    assert_equal_weights(model.state_dict(), weights())
    assert model.backbone(torch.rand(2, 3, 32, 32)).flatten(1).shape[1] == model.embedding.in_features


def test_basins_are_trained_for_and_certified():
    run("fit", *small("sa_node_letters_basins"))
    (curve,) = Path("runs").rglob("certified.json")
    assert json.loads(curve.read_text())["norm"] == "l2"
    model = SANODE.load_from_checkpoint(RUN / "checkpoints" / "last.ckpt", map_location="cpu")
    assert model.basins is not None
    assert model.basins.decide == 2


def test_a_backbone_of_one_run_serves_another_and_its_file_is_needed_once():
    write_all()
    resnet = small("nmode_cifar10")
    run("fit", *resnet)
    Path("first.ckpt").write_bytes((RUN / "checkpoints" / "best.ckpt").read_bytes())
    run("fit", *resnet, "--model.backbone.weights", "first.ckpt", "--trainer.logger.name", "second")
    Path("first.ckpt").unlink()
    best = Path("runs/second/version_0/checkpoints/best.ckpt")
    rebuilt = NMODE.load_from_checkpoint(best, map_location="cpu").state_dict()
    first = weights(name="best")
    names = [name for name in first if name.startswith("backbone.")]
    assert all(torch.equal(first[name], rebuilt[name]) for name in names)


def test_a_longer_training_stretches_the_cycle(capsys):
    settings = [*LETTERS, "--model.lr_scheduler", "OneCycle", "--model.lr_interval", "epoch"]
    run("fit", *settings, "--trainer.max_epochs", 2)
    run("fit", *settings, "--trainer.max_epochs", 8, "--ckpt_path", "last")
    (scheduler,) = checkpoint()["lr_schedulers"]
    assert scheduler["last_epoch"] == 8
    assert scheduler["_last_lr"][0] == pytest.approx(1e-6)
    assert "trainer.max_epochs=-1" in refused("fit", *settings, "--trainer.max_epochs", -1)


def test_a_scheduler_that_watches_a_metric():
    scheduler = "lightning.pytorch.cli.ReduceLROnPlateau"
    run("fit", *LETTERS, "--model.lr_scheduler", scheduler, "--model.lr_scheduler.monitor", "val/loss")


def test_the_bound_holds_when_training_ends_within_an_epoch():
    wild = "{coupling: {class_path: torch.optim.Adam, init_args: {lr: 30}}}"
    settings = [*LETTERS, "--model.coupling", "projected", "--model.optimizers", wild]
    run("fit", *settings, "--trainer.max_steps", 1)
    report = json.loads((RUN / "stability.json").read_text())
    assert report["certified"] == 5


def test_mixed_precision_in_one_process():
    run("fit", *LETTERS, "--trainer.precision", "bf16-mixed")
    assert weights()["gamma"].dtype == torch.float32
