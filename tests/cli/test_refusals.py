"""What cannot work is refused in one line, before any training."""

from pathlib import Path

import pytest
import torch
from command_line import RUN, assert_equal_weights, refused, refused_before_training, run, small, weights
from data_files import write_all

LETTERS = small("sa_node_letters")
CVFR_LETTERS = small("cvfr_letters")
# The arguments, and what the line says, of each family's small run.
SETTINGS = {
    "sa_node_letters": [
        (["--model.block", 10], "block=10: 5 blocks must fit into 49 nodes, so from 1 to 9"),
        (["--model.a", 0], "a=0.0: must be finite and above 0"),
        (["--model.dt", -0.1], "dt=-0.1: must be finite and above 0"),
        (["--model.steps", 0], "steps=0: must be at least 1"),
        (["--data.noise_train", 1.5], "noise_train=1.5"),
        (["--data.noise_test", -0.1], "noise_test=-0.1"),
        (["--data.letters", "AB1"], "letters="),
        (["--ckpt_path", "nowhere.ckpt"], "ckpt_path='nowhere.ckpt'"),
        (["--ckpt_path", "last"], "ckpt_path='last': there is no earlier run"),
        (["--model.optimizers", "{wings: torch.optim.SGD}"], "optimizers='wings'"),
        (["--data", "null"], "data=None"),
    ],
    "cvfr_letters": [
        (["--model.c", 0.33], "c=0.33: must be below (βλ)²/4 = 0.326531"),
        (["--model.sigma", -0.1], "sigma=-0.1: must be finite and at least 0"),
        (["--model.eigenvalue", 0], "eigenvalue=0.0: must be above 0"),
        (["--model.eigenvalue", "[8, 8]"], "must be one number, or one for each of 5 classes"),
        (["--model.patterns", "[a.png, b.png]"], "patterns='2 patterns': must be 5, one per class"),
        (["--model.patterns", "[a.png,b.png,c.png,d.png,e.png]"], "patterns='a.png': must be an image file"),
        (["--model.gain", "HillGain", "--model.gain.c", 1], "c=1.0: must be below (βλ)²/4"),
    ],
    "nmode_letters": [
        (["--model.time", 0], "time=0.0: must be finite and above 0"),
        (["--model.decay", 0], "decay=0.0: must be finite and above 0"),
        (["--model.clip", 0], "clip=0.0: must be null, or finite and above 0"),
        (["--model.gain_penalty", -1], "gain_penalty=-1.0: must be finite and at least 0"),
        (["--model.width", -1], "width=-1: must be at least 0"),
        (["--model.intervals", "{epsilon: 2}"], "intervals.epsilon=2.0: must be above 0"),
        (["--model.trades", "{beta: -1}"], "trades.beta=-1.0: must be finite and at least 0"),
        (["--model.backbone", "ResNet18Features"], "model.backbone='ResNet18Features': must accept images"),
        (
            ["--model.backbone", "ResNet18Features", "--model.backbone.weights", "nothing.pt"],
            "weights='nothing.pt': cannot be read",
        ),
    ],
    "nonexpansive_letters": [
        (["--model.widths", "[4, 0]"], "widths=[4, 0]: must be numbers of at least 1"),
        (["--model.strides", "[2, 1]"], "strides=[2, 1]: must divide the sides of the images"),
        (["--model.kernel_size", 9], "kernel_size=9: must not be larger than the images, (7, 7)"),
        (["--model.max_substeps", 0], "max_substeps=0: must be null or at least 1"),
        (["--model.loss", "hinge"], "margin=0.0: must be finite and at least 0, above 0 for hinge"),
        (["--model.activation", "SiLU"], "activation='SiLU': must be one of ReLU"),
        (["--model.activation.class_path", "torch.nn.ReLU6"], "lipschitz=None: must be given for ReLU6"),
        (
            ["--model.activation.class_path", "torch.nn.SiLU", "--model.lipschitz", 2],
            "activation='SiLU': must be monotone",
        ),
    ],
    "kh_letters": [
        (["--model.m", 10], "m=10: must be between 2 and the number of filters, 9"),
        (["--model.m", 1], "m=1: must be between 2"),
        (["--model.p", 1.5], "p=1.5: must be finite and at least 2"),
        (["--model.grid", 1], "grid=1: must be at least 2"),
        (["--model.delta", -0.1], "delta=-0.1: must be finite and at least 0"),
        (["--model.kernel_size", 8], "kernel_size=8: must be from 1 to 7, the side of the image"),
        (["--model.pool_size", 6], "pool_size=6: must be from 1 to 5, the side of the feature map"),
        (["--model.pool_stride", 0], "pool_stride=0: must be at least 1"),
        (["--model.power", 0], "power=0: must be from 1 to 100"),
        (["--model.filters_from", "nothing.pt"], "filters_from='nothing.pt': cannot be read"),
        (["--trainer.filter_epochs", -1], "filter_epochs=-1: must be at least 0"),
        (["--trainer.patch_fraction", 0], "patch_fraction=0.0: must be above 0"),
        (
            ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"],
            "EarlyStopping.check_on_train_epoch_end=None: must be false with filter_epochs",
        ),
    ],
}


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [(config, *refusal) for config, refusals in SETTINGS.items() for refusal in refusals],
)
def test_settings_that_cannot_work_are_refused_before_training(config, arguments, message):
    assert message in refused_before_training(*small(config), *arguments)


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


def test_a_version_that_is_taken_and_predictions_of_many_processes_are_refused():
    run("fit", *LETTERS)
    assert "trainer.logger.version=0" in refused("fit", *LETTERS, "--trainer.logger.version", 0)
    devices = ["--trainer.devices", 2, "--trainer.strategy", "ddp"]
    assert "trainer.devices=2" in refused("predict", *LETTERS, *devices, "--ckpt_path", "best")


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
