import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attractors.certificates import finite_time_gain, published_gain
from lightning_attractors.dynamics.nmode import FlowMap, NMODELayer
from lightning_attractors.errors import SettingError


@pytest.mark.parametrize(("decay", "time"), [(3.0, 0.05), (3.0, 1.0), (1.5, 2.0), (1.0, 0.5), (0.5, 1.0)])
def test_the_exact_gain_is_below_the_finite_time_one_and_that_below_the_published(decay, time):
    exact, finite = FlowMap(decay, time).gain, finite_time_gain(decay, time)
    assert exact < finite
    if decay > 1:
        assert finite < published_gain(decay)
    if time <= 0.05:
        assert exact > 0.99 * finite  # nearly attained while y has hardly moved


@given(decay=st.floats(1.01, 20), time=st.floats(0.001, 20))
@settings(max_examples=50, deadline=None)
def test_the_finite_time_gain_solves_its_equation(decay, time):
    gain, h = finite_time_gain(decay, time), 1e-4 * time
    rate = (finite_time_gain(decay, time + h) - finite_time_gain(decay, time - h)) / (2 * h)
    assert rate == pytest.approx(1 - (decay - 1) * gain, abs=1e-5)
    assert 0 < gain <= published_gain(decay)


def test_the_finite_time_gain_has_its_limits():
    assert finite_time_gain(3.0, 100.0) == pytest.approx(published_gain(3.0))
    assert finite_time_gain(1.0, 0.7) == 0.7
    assert finite_time_gain(1 + 1e-9, 0.7) == pytest.approx(0.7)
    assert finite_time_gain(0.5, 1.0) == pytest.approx(2 * (math.exp(0.5) - 1))


def test_the_theorem_bounds_a_layer():
    layer = NMODELayer(3, 20, decay=2.0, time=1.5).double()
    tau = float(layer.linear.weight.detach().abs().sum(dim=1).max())
    x, change = 3 * torch.randn(500, 3).double(), torch.randn(500, 3).double()
    moved = (layer(x + change) - layer(x)).abs().amax(dim=1)
    assert bool((moved <= tau * change.abs().amax(dim=1) * finite_time_gain(2.0, 1.5)).all())


def test_settings_out_of_range_are_refused():
    with pytest.raises(SettingError, match=r"decay=1.0: must be above 1"):
        published_gain(1.0)
    with pytest.raises(SettingError, match="decay=nan"):
        published_gain(math.nan)
    with pytest.raises(SettingError, match=r"time=0: must be finite and above 0"):
        finite_time_gain(3.0, 0)
