import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attractors.dynamics.planted import Cubic, Hill

FUNCTIONS = [Cubic(1.0), Cubic(-1.0, 0.7), Cubic(1.6, -1.6), Hill(0.1), Hill(2.0)]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_derivatives_are_those_of_autograd(function):
    x = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    value = function.derivative(x, 0)
    for order in (1, 2, 3):
        # the zero keeps a constant derivative differentiable
        (value,) = torch.autograd.grad((value + 0 * x).sum(), x, create_graph=True)
        torch.testing.assert_close(function.derivative(x, order), value)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_affine_function_is_one_whose_second_derivative_is_zero(function):
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    assert function.is_affine == (not function.derivative(x, 2).any())


@pytest.mark.parametrize("order", [2, 3])
@given(
    number=st.integers(0, len(FUNCTIONS) - 1),
    centers=st.lists(st.floats(-4, 4), min_size=5, max_size=5),
    reach=st.floats(1e-3, 4),
)
@settings(max_examples=60, deadline=None)
def test_range_holds_all_values_and_is_reached(number, centers, reach, order):
    function, center = FUNCTIONS[number], torch.tensor(centers, dtype=torch.float64)
    low, high = function.range(center - reach, center + reach, order)
    share = torch.linspace(-1, 1, 4001, dtype=torch.float64)[:, None]
    values = function.derivative(center + share * reach, order)
    room = 1e-12 * values.abs().amax(dim=0)
    assert (low - room <= values).all()
    assert (values <= high + room).all()
    # the grid misses an extremum by half a cell at most
    reached = 0.02 * values.abs().amax(dim=0) + 1e-12
    assert (values.amin(dim=0) - low <= reached).all()
    assert (high - values.amax(dim=0) <= reached).all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_size_is_above_the_value_and_grows(function):
    x = torch.linspace(0, 5, 101, dtype=torch.float64)
    sizes = function.size(x)
    assert (function.derivative(x, 0).abs() <= sizes + 1e-12).all()
    assert (sizes.diff() >= 0).all()
