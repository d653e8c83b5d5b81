"""The checks for CUDA, on the CPU as far as they go there."""

import json
import runpy
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from gpu_checks import commands, integrations, short_fits, step_times
from gpu_checks.table import Report, Row, attempted

EXAMPLES = Path(__file__).parents[2] / "examples"
CPU = torch.device("cpu")


def test_without_a_device_it_says_so_and_writes_nothing(empty_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    with pytest.raises(SystemExit, match=r"^gpu_check needs a CUDA device, and there is none here$"):
        runpy.run_path(str(EXAMPLES / "gpu_check.py"))["main"]()
    assert [*Path().iterdir()] == []


def test_rows_survive_the_failure_of_others(tmp_path):
    report = Report(tmp_path, {"device": "none"})

    def breaks():
        yield attempted("first", lambda: 1 / 0)
        yield Row("second", "1 | 2", True, {"figure": 2.5})
        raise RuntimeError("out of\nmemory")

    report.run("one", breaks)
    halfway = json.loads((tmp_path / "gpu_check.json").read_text())
    report.run("two", lambda: [Row("third", "3")])
    rows = json.loads((tmp_path / "gpu_check.json").read_text())["rows"]
    assert rows[:3] == halfway["rows"]
    found = [(row["section"], row["what"], row["result"], row["passed"]) for row in rows]
    assert found[0] == ("one", "first", "ZeroDivisionError: division by zero", False)
    assert found[1:] == [
        ("one", "second", "1 | 2", True),
        ("one", "all of it", "RuntimeError: out of memory", False),
        ("two", "third", "3", None),
    ]
    table = (tmp_path / "gpu_check.md").read_text().splitlines()
    assert [line.split(" | ")[1] for line in table[-4:]] == ["first", "second", "all of it", "third"]
    assert "1 \\| 2" in table[-3]


@pytest.mark.parametrize("name", ["SANODE", "CVFR, noise", "KrotovHopfield", "NMODE", "NonexpansiveNet"])
def test_short_fits_learn_and_their_certificates_are_the_same_on_one_device(name):
    row = short_fits.short_fit(name, CPU, "bf16-mixed", 1)
    assert row.passed, row
    assert row.values["deviation"] == 0
    certificates = {"SANODE": {"radii", "spectra"}, "CVFR, noise": {"spectra"}, "KrotovHopfield": set()}
    expected = certificates.get(name, {"gains", "radii"})
    assert set(row.values["certified"]) == {"logits", *expected}


def test_certificates_that_differ_are_found(monkeypatch):
    numbers = iter([1.0, 1.1])
    monkeypatch.setattr(short_fits, "certified", lambda *_: {"radii": torch.tensor([next(numbers)])})
    assert not short_fits.short_fit("BackpropCNN", CPU, "32-true", 1).passed
    infinite = torch.tensor([1.0, torch.inf])
    assert short_fits._deviation(infinite, infinite) == 0
    assert short_fits._deviation(infinite, torch.tensor([1.0, 2.0])) == torch.inf


def test_steps_are_timed_against_products(monkeypatch):
    monkeypatch.setattr(step_times, "_PEAK", {"cpu": (64, 64, 64)})
    monkeypatch.setattr(step_times, "_IMAGES", 2)
    rows = list(step_times.step_times(CPU, count=1, euler_steps=1))
    assert len({row.what for row in rows}) == len(rows) == 2 + 4 * 2 + 3
    assert all(row.passed is None for row in rows), [row for row in rows if row.passed is not None]
    assert all(row.values["share of peak"] > 0 for row in rows[2:10])
    assert all(row.values["seconds"] > 0 for row in rows[2:])


def test_integrations_are_one_region_with_the_same_gradients(monkeypatch):
    monkeypatch.setattr(integrations, "one_kernel", lambda device, count: Row("nmODE", "not here"))
    rows = list(integrations.integrations(CPU, count=1, steps=2))
    assert [row.what for row in rows] == ["SANODE", "CVFR", "nmODE"]
    assert all(row.passed and row.values["deviation"] < 1e-6 for row in rows[:2]), rows


def test_the_flow_map_compiled_is_the_flow_map():
    row = integrations.one_kernel(CPU, 1, backend="aot_eager")
    assert row.values["deviation"] < 1e-6
    assert not row.passed  # this compiler makes no kernels


def test_a_config_runs_by_the_command_line_and_its_metrics_are_found(tmp_path):
    short = ["--trainer.max_epochs", "1", "--data.n_train", "100", "--trainer.callbacks", "null"]
    until = time.monotonic() + 60
    (row,) = commands.whole_fits(tmp_path, tmp_path / "none", until, ["sa_node_letters"], short)
    assert row.passed, row
    assert 0 <= row.values["test/accuracy"] <= 1
    assert f"test/accuracy {row.values['test/accuracy']:.4g}" in row.result
    assert row.values["wall seconds"] > row.values["training"] > 0


def test_a_config_that_fails_or_has_no_time_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    (failed,) = commands.whole_fits(tmp_path, tmp_path, time.monotonic() + 60, ["sa_node_letters"])
    assert (failed.passed, failed.result) == (False, "exit code 1: nothing said")
    (late,) = commands.whole_fits(tmp_path, tmp_path, time.monotonic(), ["sa_node_letters"])
    assert (late.passed, late.result) == (False, "not begun: the time was over")


@pytest.mark.parametrize(
    ("body", "passed"), [("pass", True), ("pytest.skip('none')", False), ("assert False", False)]
)
def test_marked_tests_pass_if_there_are_some_and_none_fails(tmp_path, body, passed):
    marked = f"import pytest\n\n\n@pytest.mark.cuda\ndef test_it():\n    {body}\n"
    (tmp_path / "test_marked.py").write_text(marked + "\n\ndef test_other():\n    assert False\n")
    row = commands.marked_tests(60, workers=1, files=[str(tmp_path)])
    assert row.passed == passed, row
    assert ("FAILED" in row.result) == (body == "assert False")


@pytest.mark.cuda
def test_integrations_are_one_cuda_graph():
    rows = list(integrations.integrations(torch.device("cuda"), count=1, steps=4))
    assert all(row.passed for row in rows), rows
