"""One thread per worker: the suite runs on as many workers as there are cores."""

import logging
import os

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _loud(monkeypatch):
    """What a run of the command keeps from being logged is logged again after its test."""
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    monkeypatch.setattr(rank_zero, "filters", [*rank_zero.filters])


@pytest.fixture
def quick_figures(monkeypatch):
    """Figures are drawn, but what is written of them, in files and for TensorBoard, is no picture."""
    monkeypatch.setattr("lightning_attractors.figures.lay_out", lambda figure: None)
    monkeypatch.setattr("lightning_attractors.figures.as_file", lambda figure, kind: kind.encode())
    pixels = np.zeros((3, 2, 2), dtype=np.uint8)
    monkeypatch.setattr("torch.utils.tensorboard.writer.figure_to_image", lambda figure, close: pixels)


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """The test runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    # Lightning exports these for worker processes; a run must not inherit them from the run before.
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
