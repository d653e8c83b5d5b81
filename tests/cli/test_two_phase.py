"""Filters, then a classifier, through the real command line: kills, processes, precisions, refusals."""

from pathlib import Path

import pytest
import torch
from command_line import (
    RUN,
    assert_equal_weights,
    killed_and_resumed,
    on_two_processes,
    refused,
    run,
    small,
    weights,
)

from lightning_attractors.models import KrotovHopfield

LETTERS = small("kh_letters")


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_run_killed_in_any_epoch_resumes_to_the_same_weights(epoch):
    settings = [
        *LETTERS,
        *("--trainer.filter_epochs", 3, "--trainer.max_epochs", 3, "--trainer.patch_fraction", 0.5),
        *("--data.noise_train", 0, "--trainer.feature_cache_gb", 0.1 if epoch % 2 else 0),
        *("--model.lr_scheduler", "OneCycle", "--model.lr_interval", "step"),
    ]
    killed_and_resumed(settings, epoch)
    assert (RUN / "filters.pt").exists()


def test_a_run_stopped_within_an_epoch_resumes_to_the_same_weights():
    saving = ["--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.every_n_train_steps", 1]
    saving += ["--trainer.callbacks.save_top_k", -1, "--trainer.callbacks.dirpath", "all"]
    settings = [*LETTERS, "--trainer.max_epochs", 2, "--model.optimizer.lr", 0.01]
    run("fit", *settings, *saving)
    expected = weights()
    for step in (2, 4, 5, 6, 7):  # 4 steps of the filter phase, then 2 epochs of 2 steps
        (path,) = Path("all").glob(f"*step={step}.ckpt")
        run("fit", *settings, "--ckpt_path", path, "--trainer.logger.name", f"from_{step}")
        assert_equal_weights(weights(Path(f"runs/from_{step}/version_0")), expected)
        learned = torch.load(f"runs/from_{step}/version_0/filters.pt", weights_only=True)["filters"]
        assert torch.equal(learned, expected["conv.weight"])


def test_two_processes_learn_the_filters_of_one():
    whole = ["--data.batch_size", 20, "--trainer.filter_batch_size", 20]
    halves = ["--data.batch_size", 10, "--trainer.filter_batch_size", 10]
    settings = [*LETTERS, "--data.noise_train", 0, "--trainer.feature_cache_gb", 0.1]
    settings += ["--trainer.filter_epochs", 3, "--model.power", 1]
    run("fit", *settings, *whole)
    process = on_two_processes("fit", *settings, *halves, "--trainer.logger.name", "two")
    one, two = weights(), weights(Path("runs/two/version_0"))
    torch.testing.assert_close(one["conv.weight"], two["conv.weight"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one["linear.weight"], two["linear.weight"], rtol=1e-3, atol=1e-5)
    assert process.stdout.count("Run finished") == 1


@pytest.mark.parametrize("model", ["kh_letters", "bp_letters"])
def test_two_processes_in_mixed_precision(model):
    process = on_two_processes(
        *("fit", *small(model), "--trainer.precision", "bf16-mixed", "--model.power", 50),
        *("--model.lr_scheduler", "OneCycle", "--model.lr_interval", "step"),
    )
    assert "test accuracy" in process.stdout
    assert all(value.dtype == torch.float32 for name, value in weights().items() if "weight" in name)


def test_filters_of_one_run_serve_another():
    run("fit", *LETTERS)
    learned = weights()["conv.weight"]
    settings = ["--trainer.filter_epochs", 0, "--model.filters_from", RUN / "filters.pt", "--model.power", 2]
    run("fit", *LETTERS, *settings, "--trainer.logger.name", "other")
    assert torch.equal(weights(Path("runs/other/version_0"))["conv.weight"], learned)
    assert not Path("runs/other/version_0/filters.pt").exists()
    best = Path("runs/other/version_0/checkpoints/best.ckpt")
    assert torch.equal(KrotovHopfield.load_from_checkpoint(best, map_location="cpu").filters, learned)
    message = refused("fit", *LETTERS, *settings, "--model.grid", 4)
    assert "holds filters of shape (9, 1, 3, 3), this model needs shape (16, 1, 3, 3)" in message


def test_filters_alone_can_be_learned():
    run("fit", *LETTERS, "--trainer.max_epochs", 0)
    assert torch.equal(torch.load(RUN / "filters.pt", weights_only=True)["filters"], weights()["conv.weight"])


def test_a_model_without_filters_is_refused():
    settings = [*small("sa_node_letters"), "--trainer.filter_epochs", 2]
    assert "filter_epochs=2: must be 0: SANODE learns none" in refused("fit", *settings)
