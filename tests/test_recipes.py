"""The recipes of CONTRIBUTING.md, taken out of the page and followed from outside the package."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from command_line import run
from torch import nn

from lightning_attractors.certificates import interval_radii, lipschitz_bounds
from lightning_attractors.robustness import measure

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL))


@pytest.fixture(autouse=True)
def outside(empty_folder, tmp_path, monkeypatch):
    """The files of the page in a folder of their own, from which they are imported."""
    for name, text in FILES.items():
        Path(name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_each_recipe_is_as_short_as_it_says():
    lines = {name: len([line for line in text.splitlines() if line.strip()]) for name, text in FILES.items()}
    assert lines["hopfield.py"] + lines["hopfield.yaml"] < 60
    assert lines["random_step.py"] < 25
    assert {"scaled.py", "stripes.py"} < lines.keys()


def test_a_sixth_family_is_trained_certified_and_attacked():
    attack = "{class_path: pgd_radius, init_args: {norm: l2, largest: 4.0, step_size: 0.1}}"
    curve = ["--trainer.callbacks+", "RobustnessCurve", "--trainer.callbacks.max_images", 40]
    curve += ["--trainer.callbacks.attacks", f"[{attack}]", "--trainer.callbacks.masking", "false"]
    run("fit", "--config", "hopfield.yaml", "--trainer.accelerator", "cpu", *curve)
    folder = Path("runs/hopfield/version_0")
    stability = json.loads((folder / "stability.json").read_text())
    assert stability["certified"] == stability["equilibria"] == 5
    report = json.loads((folder / "robustness" / "pgd_radius.json").read_text())
    assert report["accuracy"] > 0.9
    certificate = report["certificate"]
    assert 1e-4 < certificate["median_radius"] < report["median_radius"]
    assert certificate["misclassified_within"] == []


def test_its_equilibria_are_those_of_its_right_hand_side():
    family = importlib.import_module("hopfield")
    torch.manual_seed(0)
    model = family.Hopfield(num_classes=5, image_shape=(1, 7, 7))
    x = model.equilibria()
    flow = -x + x.tanh() @ model.field().coupling.T
    torch.testing.assert_close(flow, torch.zeros_like(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_breaks_what_it_can_reach(norm):
    images, labels = torch.tensor([0.3, 0.45, 0.9]).view(3, 1, 1, 1), torch.tensor([1, 1, 0])
    attack = {"class_path": "random_step.RandomStep", "init_args": {"norm": norm}}

    def logits(x):
        return torch.cat([x.flatten(1) - 0.5, 0.5 - x.flatten(1)], dim=1)

    report = measure(logits, [(images, labels)], [attack], strengths=[0.1, 0.3]).attacks["RandomStep"]
    assert report.images.withstood.tolist() == [[True, False], [False, False], [True, True]]


def test_a_rule_serves_both_certificates():
    scaled = importlib.import_module("scaled")
    head = nn.Linear(2, 2, bias=False).requires_grad_(False)
    head.weight.copy_(torch.eye(2))
    layers = nn.Sequential(nn.Flatten(), scaled.Halved())
    radii = interval_radii(layers, head, torch.tensor([[[0.9, 0.1]]]), torch.tensor([0]), tolerance=1e-6)
    assert radii.item() == pytest.approx(0.4, abs=1e-5)
    assert lipschitz_bounds(layers) == pytest.approx({"1": 0.5})


def test_a_data_set_is_learnt():
    model = ["--model", "BackpropCNN", "--model.grid", 2, "--model.kernel_size", 2, "--model.pool_size", 2]
    run(
        *("fit", *model, "--data", "stripes.Stripes", "--trainer.logger.name", "stripes"),
        *("--trainer.max_epochs", 20, "--trainer.accelerator", "cpu", "--data.batch_size", 20),
    )
    checkpoint = torch.load("runs/stripes/version_0/checkpoints/best.ckpt", weights_only=False)
    scores = [state.get("best_model_score") for state in checkpoint["callbacks"].values()]
    assert 1.0 in scores
