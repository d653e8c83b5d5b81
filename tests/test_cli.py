"""Every model × data pair through the real command line, and what a run leaves and refuses."""

import csv
import json
from pathlib import Path

import pytest
import torch
from command_line import CONFIGS, RUN, refused, run, run_whole_and_killed, small, spawn
from data_files import write_cifar10, write_mnist
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_attractors.models import NMODE, SANODE, NonexpansiveNet

PAIRS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
LETTERS = small("sa_node_letters")
NMODE_LETTERS = small("nmode_letters")
NONEXPANSIVE_LETTERS = small("nonexpansive_letters")
CVFR_LETTERS = small("cvfr_letters")


pytestmark = pytest.mark.usefixtures("empty_folder")


def weights(path):
    return torch.load(path, weights_only=False)["state_dict"]


def write_data():
    write_mnist("data", n_train=40, n_test=20)
    write_mnist("data", n_train=40, n_test=20, fashion=True)
    write_cifar10("data", n_train=40, n_test=20)


@pytest.mark.parametrize("pair", PAIRS)
def test_every_pair_trains_and_is_tested(pair, capsys):
    write_data()
    run("fit", *small(pair))
    assert "test accuracy" in capsys.readouterr().out
    assert sorted(path.name for path in (RUN / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert (RUN / "config.yaml").exists()


def test_a_run_leaves_everything_in_one_folder(capsys):
    run("fit", *LETTERS)
    assert sorted(path.name for path in Path().iterdir()) == ["runs"]
    left = {path.name.split(".")[0] for path in RUN.iterdir()}
    assert left == {"checkpoints", "config", "events", "figures", "hparams", "stability"}
    report = json.loads((RUN / "stability.json").read_text())
    assert report["equilibria"] == 5
    assert report["stage"] == "test"
    tags = [EventAccumulator(str(path)).Reload().Tags() for path in RUN.glob("events*")]
    names = {name for tag in tags for name in tag["scalars"]}
    assert {"train/loss", "val/accuracy", "test/attractor_accuracy", "stability/abscissa"} <= names
    images = {name for tag in tags for name in tag["images"]}
    assert {"stability/spectra", "test/trajectories", "test/final_states", "test/mse_over_time"} <= images
    table = capsys.readouterr().out
    for words in (
        "attractor accuracy H",
        "overlap m_f",
        "5/5, worst eigenvalue -",
        "training time",
        "tensorboard",
    ):
        assert words in table


def test_class_names_alone_are_enough():
    run(
        *(
            "fit",
            "--model",
            "SANODE",
            "--model.steps",
            2,
            "--data",
            "LettersDataModule",
            "--data.n_train",
            10,
        ),
        *("--trainer.max_epochs", 1, "--trainer.accelerator", "cpu"),
    )
    assert (Path("runs/version_0/checkpoints/best.ckpt")).exists()


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
    assert "class_path: lightning_attractors.models.SANODE" in capsys.readouterr().out


def test_a_saved_config_repeats_its_run():
    run("fit", *LETTERS)
    run("fit", "--config", RUN / "config.yaml")
    first, second = (weights(f"runs/test/version_{k}/checkpoints/last.ckpt") for k in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_trained_model_is_validated_tested_and_used(capsys):
    run("fit", *LETTERS)
    for subcommand in ("validate", "test"):
        run(subcommand, *LETTERS, "--ckpt_path", "best")
        assert "accuracy" in capsys.readouterr().out
    run("predict", *LETTERS, "--ckpt_path", RUN / "checkpoints" / "best.ckpt")
    rows = list(csv.DictReader(Path("runs/test/version_3/predictions.csv").read_text().splitlines()))
    assert [row["index"] for row in rows] == [str(k) for k in range(10)]
    assert {row["class"] for row in rows} <= set("01234")
    assert all(0.2 <= float(row["confidence"]) <= 1 for row in rows)


def test_a_checkpoint_rebuilds_its_model():
    run("fit", *LETTERS)
    model = SANODE.load_from_checkpoint(RUN / "checkpoints" / "best.ckpt", map_location="cpu")
    assert model.hparams["num_classes"] == 5
    assert model(torch.rand(2, 1, 7, 7)).shape == (2, 5)


@pytest.mark.parametrize(
    ("config", "scheduler"),
    [
        (LETTERS, "OneCycle"),
        (LETTERS, "torch.optim.lr_scheduler.ExponentialLR"),
        (CVFR_LETTERS, "OneCycle"),
    ],
    ids=["by step", "by epoch", "with noise"],
)
def test_a_killed_run_resumes_to_the_same_weights(config, scheduler):
    by_epoch = "Exponential" in scheduler
    settings = [
        *config,
        *("--model.coupling", "projected", "--trainer.max_epochs", 4),
        *("--model.lr_scheduler", scheduler, "--model.lr_interval", "epoch" if by_epoch else "step"),
        *(["--model.lr_scheduler.gamma", 0.5] if by_epoch else []),
        *("--model.optimizers", "{coupling: {class_path: torch.optim.Muon, init_args: {lr: 0.1}}}"),
    ]
    run_whole_and_killed(settings, 2)
    run("fit", *settings, "--ckpt_path", "last")
    expected = weights("runs/whole/version_0/checkpoints/last.ckpt")
    resumed = weights(RUN / "checkpoints" / "last.ckpt")
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    assert (RUN / "config_resumed.yaml").exists()
    assert not Path("runs/test/version_1").exists()


def table_of(output):
    """The figures of the table that a run ends with, by their labels."""
    rows = [line.split("│")[1:3] for line in output.splitlines() if line.startswith("│")]
    return {label.strip(): value.strip() for label, value in rows if label.strip()}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("config", [LETTERS, [*CVFR_LETTERS, "--model.sigma", 0]], ids=["SANODE", "CVFR"])
def test_two_processes_measure_what_one_does(config, precision, capsys):
    settings = [*config, "--trainer.precision", precision, "--data.noise_test", 0.1]
    settings += ["--model.coupling", "projected", "--model.steps", 20, "--trainer.max_epochs", 2]
    process = spawn("fit", *settings, "--trainer.devices", 2, "--trainer.strategy", "ddp")
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("Run finished") == 1
    together = table_of(process.stdout)
    run("test", *settings, "--ckpt_path", "best")
    rows = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if "│" in line]
    alone = {label.strip(): float(value) for label, value in rows if label.strip().startswith("test/")}
    assert float(together["test accuracy"]) == pytest.approx(alone["test/accuracy"], abs=1e-4)
    assert float(together["overlap m_f"]) == pytest.approx(alone["test/overlap"], abs=1e-4)


def test_two_noisy_processes_in_mixed_precision():
    process = spawn(
        *("fit", *CVFR_LETTERS, "--trainer.precision", "bf16-mixed"),
        *("--trainer.devices", 2, "--trainer.strategy", "ddp"),
    )
    assert process.returncode == 0, process.stderr
    assert "sd over realisations" in table_of(process.stdout)


def test_a_loss_that_is_nan_on_one_rank_ends_all_with_one_line():
    process = spawn(
        *("fit", *LETTERS, "--trainer.devices", 2, "--trainer.strategy", "ddp"),
        *("--trainer.callbacks+", "accidents.PoisonAt", "--trainer.callbacks.epoch", 0),
        *("--trainer.callbacks.rank", 1),
    )
    assert process.returncode != 0
    assert "error: loss is" in process.stderr
    assert "Traceback" not in process.stderr


def test_a_longer_training_stretches_the_cycle(capsys):
    settings = [*LETTERS, "--model.lr_scheduler", "OneCycle", "--model.lr_interval", "epoch"]
    run("fit", *settings, "--trainer.max_epochs", 2)
    run("fit", *settings, "--trainer.max_epochs", 8, "--ckpt_path", "last")
    (scheduler,) = torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=False)["lr_schedulers"]
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
    assert weights(RUN / "checkpoints" / "last.ckpt")["gamma"].dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.block", 10], "block=10: 5 blocks must fit into 49 nodes, so from 1 to 9"),
        (["--model.a", 0], "a=0.0: must be above 0"),
        (["--model.dt", -0.1], "dt=-0.1: must be above 0"),
        (["--model.steps", 0], "steps=0: must be at least 1"),
        (["--data.noise_train", 1.5], "noise_train=1.5"),
        (["--data.noise_test", -0.1], "noise_test=-0.1"),
        (["--data.letters", "AB1"], "letters="),
        (["--ckpt_path", "nowhere.ckpt"], "ckpt_path='nowhere.ckpt'"),
        (["--ckpt_path", "last"], "ckpt_path='last': there is no last.ckpt"),
        (["--model.optimizers", "{wings: torch.optim.SGD}"], "optimizers='wings'"),
        (["--data", "null"], "data=None"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(arguments, message):
    assert message in refused("fit", *LETTERS, *arguments)
    assert not list(Path().glob("runs/**/*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.c", 0.33], "c=0.33: must be below (βλ)²/4 = 0.326531"),
        (["--model.sigma", -0.1], "sigma=-0.1: must be finite and at least 0"),
        (["--model.eigenvalue", 0], "eigenvalue=0.0: must be above 0"),
        (["--model.eigenvalue", "[8, 8]"], "must be one number, or one for each of 5 classes"),
        (["--model.patterns", "[a.png, b.png]"], "patterns='2 patterns': must be 5, one per class"),
        (["--model.patterns", "[a.png,b.png,c.png,d.png,e.png]"], "patterns='a.png': must be an image file"),
        (["--model.gain", "HillGain", "--model.gain.c", 1], "c=1.0: must be below (βλ)²/4"),
    ],
)
def test_settings_of_cvfr_that_cannot_work_are_refused_before_training(arguments, message):
    assert message in refused("fit", *CVFR_LETTERS, *arguments)
    assert not list(Path().glob("runs/**/*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.time", 0], "time=0.0: must be finite and above 0"),
        (["--model.decay", 0], "decay=0.0: must be finite and above 0"),
        (["--model.clip", 0], "clip=0.0: must be null, or finite and above 0"),
        (["--model.gain_penalty", -1], "gain_penalty=-1.0: must be finite and at least 0"),
        (["--model.width", -1], "width=-1: must be at least 0"),
        (["--model.decay", 1, "--model.intervals", "{epsilon: 0.1}"], "decay=1.0: must be above 1 for a"),
        (["--model.intervals", "{epsilon: 2}"], "intervals.epsilon=2.0: must be above 0"),
        (["--model.trades", "{beta: -1}"], "trades.beta=-1.0: must be finite and at least 0"),
        (["--model.backbone", "ResNet18Features"], "model.backbone='ResNet18Features': must accept images"),
        (
            ["--model.backbone", "ResNet18Features", "--model.backbone.weights", "nothing.pt"],
            "weights='nothing.pt': cannot be read",
        ),
    ],
)
def test_settings_of_nmode_that_cannot_work_are_refused_before_training(arguments, message):
    assert message in refused("fit", *NMODE_LETTERS, *arguments)
    assert not list(Path().glob("runs/**/*.ckpt"))


def test_nan_in_nmode_is_refused_in_one_line():
    poison = ["--trainer.callbacks+", "accidents.PoisonAt", "--trainer.callbacks.epoch", 0]
    assert "loss is nan at step 0" in refused("fit", *NMODE_LETTERS, *poison)


CONV = (
    "{class_path: ConvBackbone, init_args: {in_channels: 1, channels: [2], kernel_sizes: [3], strides: [2]}}"
)


@pytest.mark.parametrize(
    "settings",
    [
        ["--model.trades", "{steps: 2}"],
        ["--model.intervals", "{epsilon: 0.02, warmup: 1, ramp: 2}", "--model.backbone", CONV],
    ],
    ids=["TRADES", "intervals"],
)
def test_a_killed_nmode_run_resumes_to_the_same_weights(settings):
    settings = [*NMODE_LETTERS, *settings, "--trainer.max_epochs", 4]
    settings += ["--model.lr_scheduler", "OneCycle", "--model.lr_interval", "step"]
    run_whole_and_killed(settings, 2)
    run("fit", *settings, "--ckpt_path", "last")
    expected = weights("runs/whole/version_0/checkpoints/last.ckpt")
    resumed = weights(RUN / "checkpoints" / "last.ckpt")
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    assert expected["layer.linear.weight"].abs().max() <= 0.2001
    rebuilt = NMODE.load_from_checkpoint(RUN / "checkpoints" / "best.ckpt", map_location="cpu")
    assert rebuilt(torch.rand(2, 1, 7, 7)).shape == (2, 5)
    assert (rebuilt.trades is None) == ("--model.trades" not in settings)


@pytest.mark.parametrize(
    "setting", ["--model.trades={steps: 2}", "--model.intervals={epsilon: 0.02, warmup: 0}"]
)
def test_two_processes_train_nmode_in_mixed_precision(setting):
    process = spawn(
        *("fit", *NMODE_LETTERS, setting, "--trainer.precision", "bf16-mixed"),
        *("--trainer.devices", 2, "--trainer.strategy", "ddp", "--trainer.max_epochs", 2),
        *("--trainer.callbacks", "StabilityCertificate"),
    )
    assert process.returncode == 0, process.stderr
    assert "gain bounds" in process.stdout
    assert weights(RUN / "checkpoints" / "last.ckpt")["layer.linear.weight"].abs().max() <= 0.2001


def test_a_backbone_of_one_run_serves_another_and_its_file_is_needed_once():
    write_data()
    resnet = small("nmode_cifar10")
    run("fit", *resnet)
    Path("first.ckpt").write_bytes((RUN / "checkpoints" / "best.ckpt").read_bytes())
    run("fit", *resnet, "--model.backbone.weights", "first.ckpt", "--trainer.logger.name", "second")
    Path("first.ckpt").unlink()
    best = Path("runs/second/version_0/checkpoints/best.ckpt")
    rebuilt = NMODE.load_from_checkpoint(best, map_location="cpu").state_dict()
    first = weights(RUN / "checkpoints" / "best.ckpt")
    names = [name for name in first if name.startswith("backbone.")]
    assert all(torch.equal(first[name], rebuilt[name]) for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
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
)
def test_settings_of_nonexpansive_networks_that_cannot_work_are_refused(arguments, message):
    assert message in refused("fit", *NONEXPANSIVE_LETTERS, *arguments)
    assert not list(Path().glob("runs/**/*.ckpt"))


def test_nan_in_a_nonexpansive_network_is_refused_in_one_line():
    poison = ["--trainer.callbacks+", "accidents.PoisonAt", "--trainer.callbacks.epoch", 0]
    assert "loss is nan at step 0" in refused("fit", *NONEXPANSIVE_LETTERS, *poison)


@pytest.mark.parametrize("activation", ["LeakyReLU", "torch.nn.ReLU6"], ids=["by name", "module"])
def test_a_killed_nonexpansive_run_resumes_to_the_same_weights(activation):
    settings = [*NONEXPANSIVE_LETTERS, "--trainer.max_epochs", 4]
    settings += ["--model.lr_scheduler", "OneCycle", "--model.lr_interval", "step"]
    named = "." not in activation
    settings += ["--model.activation" if named else "--model.activation.class_path", activation]
    run_whole_and_killed([*settings, "--model.lipschitz", 1], 2)
    run("fit", *settings, "--model.lipschitz", 1, "--ckpt_path", "last")
    expected = weights("runs/whole/version_0/checkpoints/last.ckpt")
    resumed = weights(RUN / "checkpoints" / "last.ckpt")
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    rebuilt = NonexpansiveNet.load_from_checkpoint(RUN / "checkpoints" / "best.ckpt", map_location="cpu")
    assert type(rebuilt.activation.function).__name__ == activation.rpartition(".")[2]
    assert rebuilt(torch.rand(2, 1, 7, 7)).shape == (2, 5)


@pytest.mark.parametrize("constrained", ["true", "false"])
def test_two_processes_train_a_nonexpansive_network_in_mixed_precision(constrained):
    process = spawn(
        *("fit", *NONEXPANSIVE_LETTERS, "--trainer.precision", "bf16-mixed"),
        *("--trainer.devices", 2, "--trainer.strategy", "ddp", "--model.constrained", constrained),
        *("--trainer.callbacks", "StabilityCertificate"),
    )
    assert process.returncode == 0, process.stderr
    assert "gain bounds" in process.stdout
    assert "recomputed" not in process.stderr
    kept = weights(RUN / "checkpoints" / "last.ckpt")
    assert kept["head.operator.weight"].dtype == torch.float32


def test_a_checkpoint_with_other_attractors_is_refused():
    run("fit", *CVFR_LETTERS)
    path = RUN / "checkpoints" / "best.ckpt"
    message = refused("fit", *CVFR_LETTERS, "--model.patterns", "blocks", "--ckpt_path", path)
    assert "ckpt_path='a checkpoint with other attractors'" in message


@pytest.mark.parametrize("data", ["MNISTDataModule", "FashionMNISTDataModule", "CIFAR10DataModule"])
def test_missing_and_truncated_data_are_refused(data):
    arguments = [
        "fit",
        "--model",
        "SANODE",
        "--data",
        data,
        "--data.download",
        "false",
        "--trainer.accelerator",
        "cpu",
    ]
    arguments += ["--model.coupling", "projected"]
    assert "root='data'" in refused(*arguments)
    write_data()
    for path in [*Path("data").rglob("train-images*"), *Path("data").rglob("data_batch_1")]:
        path.write_bytes(path.read_bytes()[:-100])
    assert "root='data'" in refused(*arguments, "--data.verify_checksums", "false")
    assert not list(Path().glob("runs/**/*.ckpt"))


def test_an_unwritable_log_folder_is_refused():
    Path("runs").write_text("a file where the folder should be")
    assert "trainer.logger save_dir='runs/test': must be writable" in refused("fit", *LETTERS)


def test_a_checkpoint_of_another_model_is_refused():
    run("fit", *LETTERS)
    path = RUN / "checkpoints" / "best.ckpt"
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


def test_a_version_that_is_taken_and_predictions_of_many_processes_are_refused():
    run("fit", *LETTERS)
    assert "trainer.logger.version=0" in refused("fit", *LETTERS, "--trainer.logger.version", 0)
    devices = ["--trainer.devices", 2, "--trainer.strategy", "ddp"]
    assert "trainer.devices=2" in refused("predict", *LETTERS, *devices, "--ckpt_path", "best")


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_last_checkpoint():
    run("fit", *LETTERS)
    before = weights(RUN / "checkpoints" / "last.ckpt")
    message = refused(
        *("fit", *LETTERS, "--ckpt_path", "last", "--trainer.max_epochs", 9),
        *("--trainer.callbacks+", "accidents.PoisonAt", "--trainer.callbacks.epoch", 1),
    )
    assert "is untouched" in message
    assert "model.optimizer" in message
    after = weights(RUN / "checkpoints" / "last.ckpt")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
