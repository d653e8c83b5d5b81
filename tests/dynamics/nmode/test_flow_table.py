import math

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
    gather, shares = torch.grid_sampler_2d, []

    def noted(image, points, *settings):
        shares.append(points.shape[:3])
        return gather(image, points, *settings)

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "grid_sampler_2d", noted)
    torch.testing.assert_close(flow(gamma), expected, rtol=0, atol=1e-6)
    assert shares == [(math.gcd(count, 2 if threads == 3 else threads), 1, count // shares[0][0])]
