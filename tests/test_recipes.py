"""The recipes of CONTRIBUTING.md, taken out of the page and followed from outside the package."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from command_line import run
from torch import nn

from lightning_attractors.certificates import interval_radii, l2_radii
from lightning_attractors.dynamics.nonexpansive import ControlledLinear, DenseOperator
from lightning_attractors.robustness import measure

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL))


@pytest.fixture(autouse=True)
def outside(empty_folder, tmp_path, monkeypatch):
    """The files of the page in a folder of their own, from which they are imported."""
    for name, text in FILES.items():
        Path(name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_each_recipe_is_as_short_as_the_page_says():
    lines = {name: len([line for line in text.splitlines() if line.strip()]) for name, text in FILES.items()}
    family = lines.pop("hopfield.py") + lines.pop("hopfield.yaml")
    least, most = map(
        int, re.search(r"under (\d+) lines and each of the others in under (\d+)", PAGE).groups()
    )
    assert family < least == 60
    assert sorted(lines) == ["negated.py", "random_step.py", "stripes.py"]
    assert max(lines.values()) < most == 25


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
    assert 0.5 < report["median_radius"] < 4
    family = importlib.import_module("hopfield")
    model = family.Hopfield.load_from_checkpoint(folder / "checkpoints" / "best.ckpt", map_location="cpu")
    model.double().eval()
    stretch = stability["gain_bounds"]["gain"] ** (1 / model.num_steps)
    for x in (torch.zeros(1, 49), torch.rand(1, 49), *model.equilibria().split(1)):
        step = torch.func.jacrev(lambda state: model.step_map(state)[0])(x.double()).squeeze()
        assert torch.linalg.matrix_norm(step, 2) <= stretch * (1 + 1e-6)
    assert torch.linalg.matrix_norm(0.75 * torch.eye(49) + 0.25 * model.field().coupling, 2) > 0.5 * stretch


def test_its_equilibria_are_those_of_its_right_hand_side():
    family = importlib.import_module("hopfield")
    torch.manual_seed(0)
    model = family.Hopfield(num_classes=5, image_shape=(1, 7, 7))
    x = model.equilibria()
    flow = -x + x.tanh() @ model.field().coupling.T
    torch.testing.assert_close(flow, torch.zeros_like(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("norm", "strengths"), [("linf", [0.1, 0.3]), ("l2", [0.2, 0.6])])
def test_an_attack_breaks_what_it_can_reach(norm, strengths):
    # The mean of four pixels decides, which a strength moves by itself in L∞, by half of it in L2.
    images = torch.tensor([0.3, 0.47, 0.9]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    attack = {"class_path": "random_step.RandomStep", "init_args": {"norm": norm}}

    def logits(x):
        mean = x.flatten(1).mean(dim=1, keepdim=True)
        return torch.cat([mean - 0.5, 0.5 - mean], dim=1)

    batches = [(images, torch.tensor([1, 1, 0]))]
    report = measure(logits, batches, [attack], strengths=strengths).attacks["RandomStep"]
    assert report.images.withstood.tolist() == [[True, False], [False, False], [True, True]]
    assert bool(report.images.bounded.all())


def test_a_rule_serves_both_certificates():
    negated = importlib.import_module("negated").Negated()
    layers, images, labels = (
        nn.Sequential(nn.Flatten(), negated),
        torch.tensor([[[0.9, 0.1]]]),
        torch.tensor([1]),
    )
    head = ControlledLinear(DenseOperator(2, 2), controlled=False)
    with torch.no_grad():
        head.operator.weight.copy_(torch.eye(2))
        head.bias.zero_()
    assert l2_radii(layers, head, images, labels).item() == pytest.approx(0.8 / 2**0.5, abs=1e-5)
    linear = nn.Linear(2, 2, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.eye(2))
    assert interval_radii(layers, linear, images, labels, tolerance=1e-6).item() == pytest.approx(
        0.4, abs=1e-5
    )


def test_a_data_set_is_learnt():
    model = ["--model", "BackpropCNN", "--model.grid", 2, "--model.kernel_size", 2, "--model.pool_size", 2]
    run(
        *("fit", *model, "--data", "stripes.Stripes", "--trainer.logger.name", "stripes"),
        *("--trainer.max_epochs", 20, "--trainer.accelerator", "cpu", "--data.batch_size", 20),
    )
    checkpoint = torch.load("runs/stripes/version_0/checkpoints/best.ckpt", weights_only=False)
    scores = [state.get("best_model_score") for state in checkpoint["callbacks"].values()]
    assert 1.0 in scores
