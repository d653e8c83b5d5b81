import os
from pathlib import Path

import pytest
from jsonargparse import Namespace
from refusals import refusal

from lightning_attractors.cli.runs import (
    check_writable,
    checkpoint_of_run,
    log_root,
    precision_of_run,
    run_to_go_on,
)


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


def test_the_run_to_go_on_is_the_newest_that_trains_whatever_was_touched_last(tmp_path):
    trainer = Namespace(logger=logger(save_dir=str(tmp_path), name="letters", version=None))
    config = Namespace(trainer=trainer)
    message = refusal(run_to_go_on, config, "last")
    assert message == f"ckpt_path='last': there is no earlier run in {tmp_path}/letters"
    root = tmp_path / "letters"
    for number in (9, 10, 11, 12, 13):
        (root / f"version_{number}").mkdir(parents=True)
    for number in (9, 10):
        (root / f"version_{number}" / "checkpoints").mkdir()
        (root / f"version_{number}" / "checkpoints" / "last.ckpt").touch()
    os.utime(root / "version_9" / "checkpoints" / "last.ckpt", (2e9, 2e9))
    (root / "version_12" / "config.yaml").write_text("{ckpt_path: best, verbose: true}")  # a test
    assert run_to_go_on(config, "last") == root / "version_10"
    (root / "version_11" / "config.yaml").write_text("{ckpt_path: null}")
    assert run_to_go_on(config, "last") == root / "version_11"
    message = refusal(checkpoint_of_run, root / "version_11", "last")
    assert "version_11, has no last checkpoint: it has not come to the end of an epoch" in message
    (root / "version_13" / "config.yaml").touch()  # killed as its config was written
    assert run_to_go_on(config, "last") == root / "version_13"
    trainer.logger.init_args.version = 9
    assert run_to_go_on(config, "last") == root / "version_9"
    trainer.logger.init_args.version = 99
    message = refusal(run_to_go_on, config, "last")
    assert message == f"ckpt_path='last': there is no earlier run {root}/version_99"


def test_a_damaged_state_that_should_say_which_file_is_the_best_is_named(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("checkpoint: {filename: '{epoch}'}")
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"PK damaged")
    message = refusal(checkpoint_of_run, tmp_path, "best")
    assert message.startswith(f"ckpt_path='{tmp_path}/checkpoints/last.ckpt': must be whole")


def test_a_run_without_a_folder_of_its_own_is_found_in_the_root(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    config = Namespace(trainer=Namespace(logger=False, default_root_dir=str(tmp_path)))
    assert run_to_go_on(config, "best") == tmp_path


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
