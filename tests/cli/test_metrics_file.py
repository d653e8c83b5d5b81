import csv

from lightning_attractors.cli.metrics_file import MetricsFile


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_step_has_one_row_whatever_is_logged_when(tmp_path):
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"loss": 2.0, "epoch": 0}, step=9)
    logger.log_metrics({"loss": 1.0, "epoch": 0}, step=19)
    logger.log_metrics({"accuracy": 0.5}, step=19)
    assert not (tmp_path / "metrics.csv").exists()  # not a write for every number
    logger.finalize("success")
    assert rows(tmp_path) == [
        {"step": "9", "epoch": "0", "loss": "2.0", "accuracy": ""},
        {"step": "19", "epoch": "0", "loss": "1.0", "accuracy": "0.5"},
    ]


def test_a_run_that_goes_on_keeps_what_was_before(tmp_path):
    first = MetricsFile(tmp_path)
    for step in (0, 10, 20):
        first.log_metrics({"loss": 1.0}, step=step)
    first.finalize("failed")
    second = MetricsFile(tmp_path)
    second.log_metrics({"loss": 3.0, "new": 1}, step=20)
    second.finalize("success")
    assert [(row["step"], row["loss"], row["new"]) for row in rows(tmp_path)] == [
        ("0", "1.0", ""),
        ("10", "1.0", ""),
        ("20", "3.0", "1"),
    ]


def test_a_file_that_is_not_ours_is_replaced_and_nothing_logged_leaves_none(tmp_path):
    MetricsFile(tmp_path / "none").finalize("success")
    assert not (tmp_path / "none").exists()
    (tmp_path / "metrics.csv").write_text("some,other\n1,2\n")
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=3)
    logger.finalize("success")
    assert [row["step"] for row in rows(tmp_path)] == ["3"]
