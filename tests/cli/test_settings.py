"""Where runs go, and what is said of settings that would be ignored."""

from pathlib import Path

import pytest
import yaml
from command_line import RUN, refused, run, small, spawn

SETTINGS = ["--trainer.max_epochs", 1, "--trainer.callbacks", "null"]
LETTERS = [*small("sa_node_letters"), *SETTINGS]


def test_runs_go_where_the_trainers_root_is():
    run("fit", *LETTERS, "--trainer.default_root_dir", "out")
    assert Path("out/test/version_0/checkpoints/last.ckpt").is_file()
    assert not Path("runs").exists()
    run("test", *LETTERS, "--trainer.default_root_dir", "out", "--ckpt_path", "last")


def test_a_loggers_own_folder_goes_before_the_root_and_may_be_below_home(monkeypatch):
    monkeypatch.setenv("HOME", str(Path.cwd() / "home"))
    run("fit", *LETTERS, "--trainer.default_root_dir", "out", "--trainer.logger.save_dir", "~/kept")
    assert Path("home/kept/test/version_0/checkpoints/last.ckpt").is_file()
    assert not Path("~").exists()


def test_a_saved_config_repeats_its_run_and_is_no_run_to_go_on_with():
    settings = [
        *small("kh_letters"),
        "--trainer.callbacks",
        "FScore",
        "--trainer.callbacks.filters",
        "conv.weight",
    ]
    run("fit", *settings)
    saved = yaml.safe_load((RUN / "config.yaml").read_text())
    assert saved["trainer"]["callbacks"][0]["init_args"]["filters"] == "conv.weight"
    run("fit", "--config", RUN / "config.yaml")
    run("fit", *settings, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    message = refused("fit", "--config", "runs/test/version_1/config_resumed.yaml")
    assert "trainer.logger.version='version_1': there is such a run in runs/test already" in message


def test_a_config_of_a_run_on_other_threads_is_noticed():
    run("fit", *LETTERS)
    config = RUN / "config.yaml"
    lines = config.read_text().splitlines()
    assert lines[1].endswith("threads: 1")
    config.write_text("\n".join([lines[0], lines[1].replace("threads: 1", "threads: 7"), *lines[2:]]))
    with pytest.warns(UserWarning, match="is of a run on 7 threads, here are 1.*OMP_NUM_THREADS=7"):
        run("fit", "--config", config)


def test_a_traceback_is_shown_to_who_asks_for_it(monkeypatch):
    monkeypatch.setenv("LIGHTNING_ATTRACTORS_DEBUG", "1")
    process = spawn("fit", *LETTERS, "--trainer.accelerator", "tpuu")
    assert process.returncode == 1
    assert "Traceback" in process.stderr
    assert "ValueError: You selected an invalid accelerator name" in process.stderr


def test_models_of_others_are_as_free_as_they_were():
    run(
        "fit",
        *LETTERS[2:],
        "--model",
        "strangers.OwnSettings",
        "--model.width",
        4,
        "--data",
        "LettersDataModule",
    )
    watched = ["--checkpoint.monitor", "val/quality", "--checkpoint.mode", "max"]
    run("fit", "--model", "strangers.Plain", "--data", "strangers.Data", *LETTERS[2:], *watched)


def test_merge_keys_are_no_keys_twice():
    text = "defaults: &a {max_steps: 1}\nmore: &b {log_every_n_steps: 1}\ntrainer:\n  <<: *a\n  <<: *b\n"
    Path("merged.yaml").write_text(text)
    assert "defaults" in refused("fit", *LETTERS, "--config", "merged.yaml")


def test_what_a_refused_run_had_begun_to_leave_where_it_goes_on_is_taken_back():
    run("fit", *LETTERS)
    before = {path.name for path in RUN.iterdir()}
    stopping = ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/nope"]
    refused("fit", *LETTERS, "--ckpt_path", "last", "--trainer.max_epochs", 3, *stopping)
    assert {path.name for path in RUN.iterdir()} == before
