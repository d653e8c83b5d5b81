"""Every short example does what it says, in a folder of its own."""

import json
import re
import runpy
from pathlib import Path

import pytest
from command_line import run

from lightning_attractors.models import FieldClassifier

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """Runs the main of an example in an empty folder, and gives what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name, **settings):
        runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](**settings)
        return capsys.readouterr().out

    return run


def numbers(pattern, text):
    return [float(found) for found in re.findall(pattern, text)]


def summary(path):
    return json.loads(Path("runs", path).read_text())


def test_any_torch_model_loses_accuracy_with_strength(printed):
    text = printed("any_torch_model")
    lines = re.findall(r"^(\w+): R = ([\d.]+); accuracy from weak to strong (.*)$", text, re.M)
    assert [name for name, _, _ in lines] == ["pgd_radius", "pgd_l2", "replace_pixels"]
    assert [f"{summary(f'any_torch_model/{name}.json')['R']:.3f}" for name, _, _ in lines] == [
        R for _, R, _ in lines
    ]
    for _, _, accuracies in lines:
        falling = numbers(r"[\d.]+", accuracies)
        assert falling[0] > 0.9
        assert falling[-1] < 0.5
    assert "No sign of masked gradients" in text
    assert Path("runs/any_torch_model/pgd_l2_gallery.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("quick_figures")
def test_attractors_are_certified_stable_and_tell_letters_apart(printed):
    text = printed("stable_attractors", epochs=2)
    assert re.findall(r"attractor (\w): stable", text) == list("ABCDE")
    assert max(numbers(r"real parts up to (\S+)", text)) < 0
    assert max(numbers(r"within radius (\S+),", text)) < 1
    assert numbers(r"noise: accuracy (\S+),", text)[0] > 0.5  # chance: 0.2
    assert summary("stable_attractors/stability.json")["certified"] == 5


@pytest.mark.usefixtures("quick_figures")
def test_an_own_field_is_trained_certified_and_drawn(printed):
    text = printed("own_field", epochs=2)
    assert re.findall(r"attractor (\w): stable", text) == list("ABCDE")
    assert max(numbers(r"real parts up to (\S+)", text)) < 0
    assert numbers(r"noise: accuracy (\S+)", text)[0] > 0.5  # chance: 0.2
    assert summary("own_field/stability.json")["certified"] == 5
    assert Path("runs/own_field/figures/trajectories.png").is_file()


@pytest.mark.usefixtures("quick_figures")
def test_an_own_field_is_a_class_path_in_a_config(printed, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    config = ["fit", "--config", EXAMPLES / "own_field.yaml", "--trainer.max_epochs", 1]
    run(*config, "--trainer.callbacks+", "RobustnessCurve", "--trainer.callbacks.max_images", 20)
    assert summary("own_field/version_0/stability.json")["certified"] == 5
    assert Path("runs/own_field/version_0/figures/trajectories.png").is_file()
    checkpoint = Path("runs/own_field/version_0/checkpoints/best.ckpt")
    model = FieldClassifier.load_from_checkpoint(checkpoint, map_location="cpu")
    assert type(model.right_hand_side).__name__ == "Bistable"


@pytest.mark.usefixtures("quick_figures")
def test_own_attacks_break_images_and_the_sparse_one_fewer_than_pgd(printed):
    text = printed("own_attack", epochs=2)
    broken = dict(re.findall(r"^(\w+): broke (\d+) of", text, re.M))
    assert list(broken) == ["PGD", "SparsePGD", "occlude"]
    assert int(broken["PGD"]) > int(broken["SparsePGD"]) > 0
    assert int(broken["occlude"]) > 0


@pytest.mark.usefixtures("quick_figures")
def test_an_existing_project_is_measured(printed):
    text = printed("existing_project")
    found = dict(re.findall(r"^(\w+): R = ([\d.]+) ±", text, re.M))
    assert list(found) == ["fgsm_radius", "pgd_radius", "FGSM"]
    assert float(found["pgd_radius"]) < float(found["fgsm_radius"])
    assert float(found["fgsm_radius"]) == pytest.approx(float(found["FGSM"]), abs=0.05)
    curve = summary("existing_project/robustness/fgsm_radius.json")
    assert curve["accuracy"] > 0.9
    assert (curve["images"]["all"], curve["counts"]) == (550, True)
    assert (curve["settings"]["mean"], curve["settings"]["std"]) == ([0.3], [0.25])
