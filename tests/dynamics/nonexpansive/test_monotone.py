import pytest
import torch
from torch import nn

from lightning_attractors.dynamics.nonexpansive import MONOTONE, Monotone
from lightning_attractors.errors import SettingError


class Scaled(nn.Module):
    """2 tanh(x): slopes in [0, 2]."""

    def forward(self, x):
        return 2 * torch.tanh(x)


def refused(*arguments):
    with pytest.raises(SettingError) as caught:
        Monotone(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", MONOTONE)
def test_slopes_of_the_named_ones_lie_in_0_to_1(name):
    sigma = Monotone(name)
    assert sigma.lipschitz == 1.0
    x = (8 * torch.randn(3000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).sort().values
    rises, steps = sigma(x).diff(), x.diff()
    assert bool((rises >= 0).all())
    assert bool((rises <= steps * (1 + 1e-9) + 1e-14).all())


@pytest.mark.parametrize("function", [nn.SiLU(), nn.GELU(), nn.Mish(), nn.Hardswish()])
def test_a_function_that_falls_somewhere_is_refused(function):
    message = refused(function, 2.0)
    assert message.startswith(f"activation='{type(function).__name__}': must be monotone: it falls at -")


def test_a_module_needs_its_constant():
    assert refused(nn.Tanh()) == "lipschitz=None: must be given for Tanh: its largest slope"
    assert Monotone(nn.Tanh(), 1.0).lipschitz == 1.0


def test_a_constant_below_the_largest_slope_is_refused():
    assert refused(Scaled(), 1.9) == "lipschitz=1.9: must be at least the largest slope of Scaled, 2"
    assert refused("Softplus", 0.5).startswith(
        "lipschitz=0.5: must be at least the largest slope of Softplus"
    )
    assert Monotone(Scaled(), 2.0).lipschitz == 2.0
    assert Monotone("Sigmoid", 0.25).lipschitz == 0.25


@pytest.mark.parametrize("constant", [0.0, -1.0, float("inf"), float("nan")])
def test_constants_out_of_range_are_refused(constant):
    assert refused("ReLU", constant).endswith("must be finite and above 0")


def test_parameters_are_refused_as_they_change_the_slope():
    assert refused(nn.PReLU(), 1.0) == ("activation='PReLU': must have no parameters: its slope would change")


def test_an_unknown_name_is_refused_and_the_known_are_named():
    message = refused("GELU")
    assert message.startswith("activation='GELU': must be one of ReLU, ")
    assert message.endswith(", or a module")


def test_a_module_that_works_in_place_is_as_good_as_any():
    assert Monotone(nn.ReLU(inplace=True), 1.0).lipschitz == 1.0


@pytest.mark.parametrize("function", [nn.Softmax(dim=-1), nn.Softmax(dim=0)])
def test_what_mixes_entries_is_refused(function):
    assert (
        refused(function, 1.0)
        == "activation='Softmax': must act on every entry by itself, whatever the shape"
    )
