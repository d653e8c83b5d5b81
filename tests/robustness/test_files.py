import csv
import json

import torch
from robustness_runs import Bright, pictures

from lightning_attractors.robustness import Certificate, MeasureSettings, measure, write_report


def test_a_report_is_written_whole(tmp_path):
    def exact(images, labels):
        return (images.double().mean(dim=(1, 2, 3)) - 0.5).abs() * (1 - 1e-6)

    settings = MeasureSettings(confidence=0.5, masking=False)
    attacks = ["pgd_radius", "gaussian_noise"]
    model = Bright().eval()
    report = measure(model, [pictures()], attacks, [0.1, 0.3], settings, Certificate(exact))
    written = write_report(report, tmp_path, {"model": "Bright"})
    names = {path.name for path in tmp_path.iterdir()}
    assert {path.name for path in written} == {name for name in names if not name.endswith(".pdf")}
    assert {path.parent for path in written} == {tmp_path}
    assert names >= {
        f"{name}.{end}" for name in (*attacks, "certified") for end in ("csv", "json", "png", "pdf")
    }
    assert {"pgd_radius_radii.csv", "pgd_radius_gallery.png"} <= names
    summary = json.loads((tmp_path / "pgd_radius.json").read_text())
    assert summary["R"] == report.attacks["pgd_radius"].robustness
    assert (summary["model"], summary["settings"]["confidence"]) == ("Bright", 0.5)
    with open(tmp_path / "pgd_radius_radii.csv", newline="") as file:
        found = torch.tensor([float(row["radius"]) for row in csv.DictReader(file)]).double()
    torch.testing.assert_close(found, report.attacks["pgd_radius"].images.radii, atol=1e-6, rtol=0)
