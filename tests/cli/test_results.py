"""What a run leaves in numbers, and where its tests and predictions go."""

import csv
import json
import math
from pathlib import Path

import pytest
from command_line import RUN, run, small
from PIL import Image

from lightning_attractors.models import SANODE

LETTERS = small("sa_node_letters")
CURVE = "{class_path: RobustnessCurve, init_args: {attacks: [fgsm_radius], masking: false, max_images: 4}}"


def results(folder, name="results.json"):
    return json.loads((folder / name).read_text())


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_results_hold_metrics_certificate_radii_and_circumstances():
    run("fit", *LETTERS, "--trainer.callbacks+", CURVE, "--seed_everything", 7)
    found = results(RUN)
    assert (found["model"], found["data"]) == ("SANODE", "Letters")
    assert found["class_names"] == list("ABCDE")
    assert 0 <= found["metrics"]["test/accuracy"] <= 1
    assert found["stability"]["equilibria"] == 5
    assert set(found["robustness"]) == {"fgsm_radius", "certified"}
    curve = found["robustness"]["fgsm_radius"]
    assert (curve["split"], curve["images"]["all"], set(curve["accuracy_at"])) == ("test", 4, {"0.1", "0.3"})
    assert found["checkpoint"].endswith("best.ckpt")
    assert (found["seed"], found["git"]) == (7, None)
    assert min(found["seconds"]["training"], found["seconds"]["test"]) > 0
    assert found["processor"]["device"] == "cpu"
    assert found["processor"]["name"]
    assert {"torch", "lightning", "python"} <= set(found["versions"])
    with open(RUN / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["test/accuracy"]) == pytest.approx(found["metrics"]["test/accuracy"])
    assert any(row["train/loss"] for row in rows)


def test_tests_and_predictions_of_a_run_are_in_its_folder_and_lose_nothing(capsys):
    run("fit", *LETTERS)
    before = content(RUN)
    run("test", *LETTERS, "--ckpt_path", "best")
    assert f"results are in {RUN / 'test'}" in capsys.readouterr().out
    file = str(RUN / "checkpoints" / "best.ckpt")
    run("test", *LETTERS, "--ckpt_path", file, "--data.noise_test", 0.9)
    run("predict", *LETTERS, "--ckpt_path", "last")
    run("validate", *LETTERS, "--ckpt_path", file)
    assert [path.name for path in RUN.parent.iterdir()] == [RUN.name]
    assert content(RUN).items() >= before.items()
    for name in ("test", "test_2"):
        assert (RUN / name / "stability.json").exists()
    assert results(RUN / "test")["metrics"] == results(RUN)["metrics"]
    assert results(RUN / "test_2")["metrics"] != results(RUN)["metrics"]
    assert (RUN / "validate" / "config.yaml").exists()
    with open(RUN / "predict" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["index"] for row in rows] == [str(k) for k in range(10)]
    assert [row["label_name"] for row in rows] == list("ABCDE" * 2)
    assert all(row["class_name"] == "ABCDE"[int(row["class"])] for row in rows)
    assert all(0.2 <= float(row["confidence"]) <= 1 for row in rows)
    assert all(float(row["certified_radius"]) >= 0 for row in rows)


def test_a_version_that_is_asked_for_is_where_a_test_of_a_file_goes():
    run("fit", *LETTERS)
    file = str(RUN / "checkpoints" / "best.ckpt")
    run("test", *LETTERS, "--ckpt_path", file, "--trainer.logger.version", "apart")
    assert (RUN.parent / "apart" / "results.json").exists()
    assert not (RUN / "test").exists()


def test_a_run_without_a_folder_of_its_own_keeps_its_config():
    settings = [*LETTERS, "--trainer.logger", "false", "--trainer.default_root_dir", "root"]
    run("fit", *settings)
    before, rows = ((Path("root") / name).read_bytes() for name in ("config.yaml", "metrics.csv"))
    run("test", *settings, "--ckpt_path", "best", "--data.noise_test", 0.5)
    assert (Path("root") / "config.yaml").read_bytes() == before
    assert "noise_test: 0.5" in (Path("root") / "config_test.yaml").read_text()
    assert (Path("root") / "metrics.csv").read_bytes() == rows
    assert results(Path("root"))["metrics"] != results(Path("root"), "results_test.json")["metrics"]


def test_a_checkpoint_predicts_an_image_in_a_file():
    run("fit", *LETTERS)
    model = SANODE.load_from_checkpoint(RUN / "checkpoints" / "best.ckpt", map_location="cpu")
    assert model.class_names == list("ABCDE")
    Image.new("RGB", (30, 50), "white").save("digit.png")
    found = model.predict_image("digit.png")
    assert found.class_name == "ABCDE"[found.label]
    assert 0.2 <= found.confidence <= 1
    assert math.isfinite(found.certified_radius)


def test_a_stranger_without_a_test_has_results_too(capsys):
    stranger = ["--model", "strangers.Net", "--data", "strangers.Data", "--trainer.accelerator", "cpu"]
    run("fit", *stranger, "--trainer.max_epochs", 1)
    assert "Run finished" in capsys.readouterr().out
    found = results(Path("runs/version_0"))
    assert found["metrics"]["quality"] >= 0
    assert (found["model"], found["class_names"]) == ("Net", [])
