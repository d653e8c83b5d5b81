"""Runs on two processes: they measure what one does, train in mixed precision, and end together."""

import csv
import json
from pathlib import Path

import pytest
import torch
from command_line import ON_TWO, RUN, on_two_processes, refused, run, small, spawn, table_of, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

LETTERS = small("sa_node_letters")
CVFR_LETTERS = small("cvfr_letters")
MIXED = ["--trainer.precision", "bf16-mixed"]
CERTIFIED = ["--trainer.callbacks", "StabilityCertificate"]


def test_two_processes_in_mixed_precision_measure_what_one_does(capsys):
    settings = [*LETTERS, *MIXED, "--data.noise_test", 0.1, "--data.n_test", 11]
    settings += ["--model.coupling", "projected", "--model.steps", 20, "--trainer.max_epochs", 2]
    process = spawn("fit", *settings, *ON_TWO)  # by Lightning's own launcher
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("Run finished") == 1
    together = table_of(process.stdout)
    run("test", *settings, "--ckpt_path", "best")
    rows = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if "│" in line]
    alone = {label.strip(): float(value) for label, value in rows if label.strip().startswith("test/")}
    assert float(together["test accuracy"]) == pytest.approx(alone["test/accuracy"], abs=1e-4)
    assert float(together["overlap m_f"]) == pytest.approx(alone["test/overlap"], abs=1e-4)


def losses(folder):
    (path,) = (path for path in Path(folder).glob("events*") if tags(path))
    return [event.value for event in EventAccumulator(str(path)).Reload().Scalars("train/loss")]


def tags(path):
    return "train/loss" in EventAccumulator(str(path)).Reload().Tags()["scalars"]


def csv_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(rows):
    return [float(value or "nan") for row in rows for value in row.values()]


def test_two_processes_learn_measure_and_predict_what_one_does():
    settings = [*small("bp_letters"), "--data.noise_train", 0, "--data.noise_test", 0.6]
    settings += ["--data.n_train", 12, "--data.n_val", 1, "--data.n_test", 11, "--data.eval_batch_size", 5]
    settings += ["--trainer.log_every_n_steps", 1, "--trainer.max_epochs", 2, "--trainer.callbacks"]
    settings += ["{class_path: RobustnessCurve, init_args: {attacks: [fgsm_radius], masking: false}}"]
    on_two_processes("fit", *settings, "--data.batch_size", 3)
    run("fit", *settings, "--data.batch_size", 6, "--trainer.logger.name", "alone")
    alone = Path("runs/alone/version_0")
    assert losses(RUN) == pytest.approx(losses(alone), rel=1e-5)
    found, expected = (json.loads((folder / "results.json").read_text()) for folder in (RUN, alone))
    assert found["processor"]["processes"] == 2
    assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-4, abs=1e-6)
    radii = "robustness/fgsm_radius_radii.csv"
    assert numbers(csv_rows(RUN / radii)) == pytest.approx(
        numbers(csv_rows(alone / radii)), rel=1e-4, nan_ok=True
    )
    predict = ["predict", *settings, "--ckpt_path", RUN / "checkpoints/best.ckpt"]
    on_two_processes(*predict)
    run(*predict)
    found, expected = (csv_rows(RUN / folder / "predictions.csv") for folder in ("predict", "predict_2"))
    assert [row["index"] for row in found] == [str(index) for index in range(11)]
    exact = ("label_name", "class_name")
    assert [[row[name] for name in exact] for row in found] == [
        [row[name] for name in exact] for row in expected
    ]
    confidence = [[float(row["confidence"]) for row in rows] for rows in (found, expected)]
    assert confidence[0] == pytest.approx(confidence[1], rel=1e-6)


def test_images_of_a_strangers_data_module_count_once():
    settings = ["--model", "NMODE", "--model.width", 4, "--model.image_shape", "[1,6,5]"]
    settings += ["--model.num_classes", 3, "--data", "strangers.Tensors", "--data.count", 11]
    settings += ["--ckpt_path", "untrained", "--seed_everything", 0, "--trainer.accelerator", "cpu"]
    for stage in ("test", "predict"):
        on_two_processes(stage, *settings, "--trainer.logger.name", "both")
        run(stage, *settings, "--trainer.logger.name", "alone")
    folders = [Path("runs") / name / "version_0" for name in ("both", "alone")]
    found, expected = (json.loads((folder / "results.json").read_text())["metrics"] for folder in folders)
    assert found == pytest.approx(expected, rel=1e-6)
    tables = [csv_rows(folder.with_name("version_1") / "predictions.csv") for folder in folders]
    assert numbers(tables[0]) == pytest.approx(numbers(tables[1]), rel=1e-6)


def test_two_noisy_processes_in_mixed_precision():
    process = on_two_processes("fit", *CVFR_LETTERS, *MIXED)
    assert "sd over realisations" in table_of(process.stdout)


@pytest.mark.parametrize(
    "setting", ["--model.trades={steps: 2}", "--model.intervals={epsilon: 0.02, warmup: 0}"]
)
def test_two_processes_train_nmode_in_mixed_precision(setting):
    settings = [*small("nmode_letters"), setting, "--trainer.max_epochs", 2]
    process = on_two_processes("fit", *settings, *MIXED, *CERTIFIED)
    assert "gain bounds" in process.stdout
    assert weights()["layer.linear.weight"].abs().max() <= 0.2001


@pytest.mark.parametrize("constrained", ["true", "false"])
def test_two_processes_train_a_nonexpansive_network_in_mixed_precision(constrained):
    settings = [*small("nonexpansive_letters"), "--model.constrained", constrained]
    process = on_two_processes("fit", *settings, *MIXED, *CERTIFIED)
    assert "gain bounds" in process.stdout
    assert "recomputed" not in process.stderr
    assert weights()["head.operator.weight"].dtype == torch.float32


def test_a_loss_that_is_nan_on_one_rank_ends_all_with_one_line():
    process = spawn(
        *("fit", *LETTERS, "--data.batch_size", 5, *ON_TWO),
        *("--trainer.callbacks+", "accidents.PoisonAt", "--trainer.callbacks.epoch", 0),
        *("--trainer.callbacks.rank", 1),
    )
    assert process.returncode != 0
    assert "error: loss is" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])
def test_processes_that_would_leave_one_run_in_several_folders_are_refused(strategy):
    message = refused("fit", *LETTERS, "--trainer.devices", 2, "--trainer.strategy", strategy)
    assert message.startswith(f"error: trainer.strategy='{strategy}': must be one as ddp")
    assert not Path("runs").exists()
