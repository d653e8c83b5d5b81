import numpy as np
import pytest
import torch

from lightning_attractors.dynamics.nmode import FlowMap, flow_table
from lightning_attractors.dynamics.nmode.flow_table import FlowTable


def test_a_table_too_coarse_for_its_curvature_says_so():
    wave = np.array([0, 1], dtype=np.complex128)
    assert FlowTable(wave, (flow_table.LARGEST_CURVATURE, 0.0), 1.0).is_exact
    assert not FlowTable(wave, (1.01 * flow_table.LARGEST_CURVATURE, 0.0), 1.0).is_exact
    assert not FlowTable(wave, (1.0, 1e5), 1.0).is_exact


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 6, 7, 64])
def test_any_number_of_threads_gives_the_same(threads, count, monkeypatch):
    flow, gamma = FlowMap(), torch.randn(count)
    expected = flow(gamma.double()).float()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    shares = flow_table._gather(torch.zeros(3, 9), torch.zeros(count))[0].shape
    assert shares[0] <= threads
    assert shares[0] * shares[1] == count
    torch.testing.assert_close(flow(gamma), expected, rtol=0, atol=1e-6)
