import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attractors.dynamics.planted import Gain, HillGain
from lightning_attractors.errors import SettingError


class TanhGain(Gain):
    def __call__(self, x):
        return x.tanh()

    def derivative(self, x):
        return 1 - x.tanh().square()


@pytest.mark.parametrize("gain", [HillGain(0.1), HillGain(2.0), TanhGain()])
def test_derivative_is_that_of_the_gain(gain):
    x = torch.linspace(-3, 3, 41, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(gain(x).sum(), x)
    torch.testing.assert_close(gain.derivative(x.detach()), expected)


def test_hill_gain_is_half_full_at_the_root_of_c():
    gain = HillGain(0.25)
    torch.testing.assert_close(gain(torch.tensor([0.0, 0.5, -0.5, 1e6])), torch.tensor([0.0, 0.5, 0.5, 1.0]))


@given(slope=st.floats(0.05, 50), share=st.floats(0.01, 0.99))
@settings(max_examples=40, deadline=None)
def test_the_closed_form_is_what_the_numerical_search_finds(slope, share):
    gain = HillGain(share * slope**2 / 4)
    closed = gain.alphabet(slope)
    assert closed[0] == 0
    assert closed[0] < closed[1] < closed[2]
    assert closed == pytest.approx(Gain.alphabet(gain, slope), rel=1e-9, abs=1e-12)
    points = torch.tensor(closed, dtype=torch.float64)
    torch.testing.assert_close(slope * gain(points), points)


def test_an_odd_gain_has_symmetric_fixed_points():
    low, zero, high = TanhGain().alphabet(2.0)
    assert zero == 0
    assert low == -high
    assert torch.tensor(high / 2).atanh().item() == pytest.approx(high)
    assert TanhGain().alphabet(0.9) == [0.0]


def test_c_beyond_the_fold_is_refused_with_the_largest_valid_one():
    with pytest.raises(SettingError, match=r"c=0.36: must be below \(βλ\)²/4 = 0.36"):
        HillGain(0.36).alphabet(1.2)
    with pytest.raises(SettingError, match="c=0: must be above 0"):
        HillGain(0)
