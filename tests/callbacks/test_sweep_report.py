"""What a run tells the sweep that has started it, over a pipe."""

import os
import signal
from multiprocessing import Pipe

import pytest
import torch
from trainers import quiet_trainer

from lightning_attractors.callbacks import SweepReport
from lightning_attractors.data import LettersDataModule
from lightning_attractors.models import CVFR


@pytest.fixture
def sweep(monkeypatch):
    here, there = Pipe()
    monkeypatch.setenv(SweepReport.channel, str(os.dup(there.fileno())))
    there.close()
    return here


def fit(metrics, path, epochs=2):
    data = LettersDataModule(n_train=10, n_val=10, n_test=10)
    model = CVFR(5, (1, 7, 7), steps=2, optimizer=torch.optim.SGD)
    quiet_trainer(path, [SweepReport(metrics)], max_epochs=epochs).fit(model, data)


def test_it_tells_of_every_epoch(sweep, tmp_path):
    for _ in range(2):
        sweep.send("go on")
    fit(["val/accuracy", "train/loss", "beauty"], tmp_path)
    for epoch in range(2):
        said = sweep.recv()
        assert said["epoch"] == epoch
        assert said["metrics"].keys() == {"val/accuracy", "train/loss"}
        assert 0 <= said["metrics"]["val/accuracy"] <= 1
    assert not sweep.poll()


def test_it_tells_of_a_metric_that_is_not_logged_before_the_first_batch(sweep, tmp_path):
    for _ in range(3):
        sweep.send("go on")
    fit(["val/acuracy"], tmp_path)
    said = sweep.recv()
    assert said["missing"] == "val/acuracy"
    assert "val/accuracy" in said["logged"]


def test_a_run_whose_sweep_is_gone_asks_to_be_ended(sweep, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda process, number: sent.append((process, number)))
    sweep.close()
    fit(["val/accuracy"], tmp_path, epochs=1)
    assert sent == [(os.getpid(), signal.SIGTERM)]


def test_without_a_sweep_it_does_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv(SweepReport.channel, raising=False)
    fit(["beauty"], tmp_path, epochs=1)
