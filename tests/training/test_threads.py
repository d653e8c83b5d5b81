import pytest
import torch
from torch import nn

from lightning_attractors.training import suit_threads


@pytest.mark.parametrize(("side", "threads"), [(49, 1), (784, 5)])
def test_small_models_take_one_thread_unless_the_user_has_a_number(side, threads, monkeypatch):
    set_to = [5]
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    suit_threads(nn.Linear(side, side))
    assert set_to == [5]
    monkeypatch.delenv("OMP_NUM_THREADS")
    suit_threads(nn.Linear(side, side))
    assert set_to[-1] == threads
