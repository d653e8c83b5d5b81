import json
import sys

import pytest
import torch
from robustness_runs import Bright, example, measured, report, rows
from torch.utils.data import DataLoader

from lightning_attractors.robustness import fgsm_radii

MEAN, STD = 0.3, 0.25


def test_a_stranger_of_the_example_is_measured_through_arguments(tmp_path):
    project = example("existing_project")
    torch.manual_seed(0)
    data = project.Bands(50, seed=1)
    module = project.PlainCNN()
    loader = DataLoader(data, batch_size=20)
    _, found = measured(tmp_path, module, loader, attacks=["fgsm_radius"], **project.CURVE)
    assert found["images"]["all"] == 50
    module.eval()
    images = data.pixels * STD + MEAN

    def logits(pixels):
        return module((pixels - MEAN) / STD)[0]

    expected = fgsm_radii(logits, images, data.targets).radii
    radii = [float(row["radius"]) for row in rows(tmp_path, "fgsm_radius_radii")]
    assert radii == pytest.approx(expected.tolist(), abs=1e-5)
    assert (expected.isfinite() & (expected > 0)).any()


def test_runs_are_compared_by_their_files(tmp_path, monkeypatch, capsys):
    for scale in (20.0, 40.0):
        measured(tmp_path / f"{scale:g}", Bright(scale), attacks=["pgd_radius"], confidence=0)
    measured(tmp_path / "unsure", Bright(0.1), attacks=["pgd_radius"])
    broken_off = tmp_path / "20" / "robustness" / "pgd_radius.json"
    broken_off.write_text(
        json.dumps(report(tmp_path / "20", "pgd_radius") | {"complete": False, "counts": True})
    )
    assert not example("studies/compare_runs").read([tmp_path / "20"], "pgd_radius")[0]["counts"]
    names = [str(tmp_path / name) for name in ("20", "40", "unsure", "nothing")]
    output = tmp_path / "scatter.png"
    monkeypatch.setattr(sys, "argv", ["compare_runs.py", *names, "--output", str(output)])
    monkeypatch.setenv("COLUMNS", "300")
    example("studies/compare_runs").main()
    printed = capsys.readouterr().out
    assert f"{report(tmp_path / '20', 'pgd_radius')['R']:.4f}" in printed
    assert "no image is classified correctly" in printed
    assert "nothing" not in printed
    assert printed.count("no, interrupted") == 1
    assert output.read_bytes().startswith(b"\x89PNG")
