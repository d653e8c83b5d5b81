"""What cannot work is refused in one line, before any training."""

from pathlib import Path

import pytest
import torch
from command_line import RUN, assert_equal_weights, refused, refused_before_training, run, small, weights
from data_files import write_all

LETTERS = small("sa_node_letters")
CVFR_LETTERS = small("cvfr_letters")


@pytest.mark.parametrize("data", ["MNISTDataModule", "FashionMNISTDataModule", "CIFAR10DataModule"])
def test_missing_and_truncated_data_are_refused(data):
    arguments = ["--model", "SANODE", "--model.coupling", "projected", "--trainer.accelerator", "cpu"]
    arguments += ["--data", data, "--data.download", "false"]
    assert "root='data'" in refused("fit", *arguments)
    write_all()
    for path in [*Path("data").rglob("train-images*"), *Path("data").rglob("data_batch_1")]:
        path.write_bytes(path.read_bytes()[:-100])
    assert "root='data'" in refused_before_training(*arguments, "--data.verify_checksums", "false")


def test_an_unwritable_log_folder_is_refused():
    Path("runs").write_text("a file where the folder should be")
    assert "trainer.logger save_dir='runs/test': must be writable" in refused("fit", *LETTERS)
    Path("runs").unlink()
    RUN.parent.mkdir(parents=True)
    RUN.write_text("a file where a run's folder should be")
    assert "version_0': must be the folder of a run" in refused("fit", *LETTERS)
    assert RUN.is_file()


def test_a_checkpoint_of_another_model_is_refused():
    run("fit", *LETTERS)
    path = (RUN / "checkpoints" / "best.ckpt").rename("alone.ckpt")
    assert "needs shape" in refused("fit", *LETTERS, "--data.letters", "ABC", "--ckpt_path", path)
    checkpoint = torch.load(path, weights_only=False)
    torch.save({**checkpoint, "model_class": "CVFR"}, "other.ckpt")
    assert "must be a checkpoint of SANODE" in refused("fit", *LETTERS, "--ckpt_path", "other.ckpt")
    torch.save(checkpoint["state_dict"], "weights.pt")
    assert "must be a Lightning checkpoint" in refused("fit", *LETTERS, "--ckpt_path", "weights.pt")
    split = ["--model.optimizers", "{gamma: torch.optim.SGD}"]
    assert "differs from the checkpoint's" in refused("fit", *LETTERS, *split, "--ckpt_path", path)
    content = path.read_bytes()
    path.write_bytes(content[:-1000])
    assert "exists and is whole" in refused("fit", *LETTERS, "--ckpt_path", path)
    path.write_bytes(content[: len(content) // 2] + bytes(64) + content[len(content) // 2 + 64 :])
    assert "exists and is whole" in refused("fit", *LETTERS, "--ckpt_path", path)


def test_a_checkpoint_with_other_attractors_is_refused():
    run("fit", *CVFR_LETTERS)
    path = (RUN / "checkpoints" / "best.ckpt").rename("alone.ckpt")
    message = refused("fit", *CVFR_LETTERS, "--model.patterns", "blocks", "--ckpt_path", path)
    assert "ckpt_path='a checkpoint with other attractors'" in message


def test_a_version_that_is_taken_is_refused():
    run("fit", *LETTERS)
    assert "trainer.logger.version=0" in refused("fit", *LETTERS, "--trainer.logger.version", 0)


@pytest.mark.parametrize("config", ["nmode_letters", "nonexpansive_letters"])
def test_a_loss_that_is_nan_is_refused_in_one_line(config):
    poison = ["--trainer.callbacks+", "accidents.PoisonAt", "--trainer.callbacks.epoch", 0]
    assert "loss is nan at step 1" in refused("fit", *small(config), *poison)


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_last_checkpoint():
    run("fit", *LETTERS)
    before = weights()
    message = refused(
        *("fit", *LETTERS, "--ckpt_path", "last", "--trainer.max_epochs", 9),
        *("--trainer.callbacks+", "accidents.PoisonAt", "--trainer.callbacks.epoch", 1),
    )
    assert "is untouched" in message
    assert "model.optimizer" in message
    assert_equal_weights(weights(), before)


def test_what_is_raised_once_training_has_begun_keeps_its_traceback_and_its_folder():
    with pytest.raises(ZeroDivisionError):
        run(
            "fit",
            *LETTERS,
            "--trainer.callbacks+",
            "accidents.FailsAt",
            "--trainer.callbacks.hook",
            "on_train_end",
        )
    assert (RUN / "checkpoints" / "last.ckpt").is_file()


def test_what_is_raised_before_is_one_line_and_leaves_no_folder_but_those_of_others():
    failing = ["--trainer.callbacks+", "accidents.FailsAt", "--trainer.callbacks.hook", "on_train_start"]
    message = refused("fit", *LETTERS, *failing)
    assert "ZeroDivisionError: integer division or modulo by zero (accidents.py, line" in message
    assert not Path("runs").exists()
    run("fit", *LETTERS)
    refused("fit", *LETTERS, *failing)
    assert [path.name for path in RUN.parent.iterdir()] == [RUN.name]
    refused("fit", *LETTERS, "--ckpt_path", "last", "--trainer.max_epochs", 9, *failing)
    assert (RUN / "checkpoints" / "last.ckpt").is_file()


def test_a_metric_that_nobody_logs_is_named_after_the_first_epoch():
    stopping = ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "accuracy"]
    assert "Early stopping conditioned on metric `accuracy` which is not available" in refused(
        "fit", *LETTERS, *stopping
    )
