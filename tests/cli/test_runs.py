import os
from pathlib import Path

import pytest
from jsonargparse import Namespace
from refusals import refusal

from lightning_attractors.cli.runs import check_writable, log_root, newest_checkpoint, precision_of_run


def logger(**settings):
    return Namespace(class_path="TensorBoardLogger", init_args=Namespace(**settings))


@pytest.mark.parametrize(
    ("given", "root"),
    [
        (logger(save_dir="logs", name="letters"), "logs/letters"),
        (logger(save_dir="logs", name=None), "logs"),
        ([logger(project="elsewhere"), logger(save_dir="logs", name="second")], "logs/second"),
        (True, "here/lightning_logs"),
        (False, "here"),
        (None, "here"),
    ],
)
def test_runs_are_where_the_first_logger_with_a_folder_puts_them(given, root):
    assert log_root(Namespace(logger=given, default_root_dir="here")) == Path(root)


def test_the_newest_checkpoint_is_that_of_the_latest_writing(tmp_path):
    assert refusal(newest_checkpoint, tmp_path, "last").startswith("ckpt_path='last': there is no last.ckpt")
    folders = [tmp_path / "version_9", tmp_path / "version_10", tmp_path]
    for age, folder in enumerate(folders):
        path = folder / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    assert newest_checkpoint(tmp_path, "last") == folders[0] / "checkpoints" / "last.ckpt"
    os.utime(path, (2000, 2000))
    assert newest_checkpoint(tmp_path, "last") == path


def test_the_precision_of_a_run_is_that_of_its_newest_config_that_can_be_read(tmp_path):
    assert precision_of_run(tmp_path) is None
    (tmp_path / "config.yaml").write_text("trainer: {precision: bf16-mixed}")
    assert precision_of_run(tmp_path) == "bf16-mixed"
    for text, found in (
        ("trainer: {precision: 32-true}", "32-true"),
        ("trainer: {precision: [}", "bf16-mixed"),
        ("trainer: null", "bf16-mixed"),
        ("", "bf16-mixed"),
    ):
        (tmp_path / "config_resumed.yaml").write_text(text)
        assert precision_of_run(tmp_path) == found


def test_a_folder_is_made_and_left_empty_or_refused(tmp_path):
    check_writable(tmp_path / "deep" / "runs")
    assert list((tmp_path / "deep" / "runs").iterdir()) == []
    (tmp_path / "file").touch()
    message = refusal(check_writable, tmp_path / "file" / "runs")
    assert message.startswith(f"trainer.logger save_dir='{tmp_path}/file/runs': must be writable (")
