import copy
import math
import warnings

import pytest
import torch
from nonexpansive_networks import METHODS, OPERATORS, domain
from torch import nn

from lightning_attractors.dynamics.nonexpansive import (
    DenseOperator,
    GradientFlow,
    Monotone,
)
from lightning_attractors.errors import NonFiniteError, SettingError


def make_flow(operator, method="euler", activation="LeakyReLU", span=2.0, scale=None, substeps=None):
    torch.manual_seed(1)
    flow = GradientFlow(OPERATORS[operator](), span, Monotone(activation), method, substeps)
    if scale is not None:
        flow.operator.weight.data = torch.randn_like(flow.operator.weight)
        flow.operator.weight.data *= scale / flow.operator.norm
    flow.bias.data.normal_()
    return flow


def largest_ratio(function, shape, pairs=8, steps=6):
    """The largest ‖f(x) − f(y)‖ / ‖x − y‖ found, float64: near pairs and far ones, climbing."""
    numbers = torch.Generator().manual_seed(0)
    x, change = torch.randn(2, pairs, *shape, generator=numbers, dtype=torch.float64)
    sizes = torch.logspace(-3, 1, pairs, dtype=torch.float64).view(-1, *[1] * len(shape))
    best = 0.0
    for step in range(steps):
        change = change / change.flatten(1).norm(dim=1).view(sizes.shape)
        x, change = x.detach().requires_grad_(), change.detach().requires_grad_()
        moved = (function(x + sizes * change) - function(x)).flatten(1).norm(dim=1)
        ratio = moved / (sizes * change).flatten(1).norm(dim=1)
        best = max(best, float(ratio.detach().max()))
        slopes = torch.autograd.grad(ratio.sum(), (x, change))
        x, change = (
            value + 0.5 * 0.9**step * slope / slope.flatten(1).norm(dim=1).clamp(min=1e-12).view(sizes.shape)
            for value, slope in zip((x, change), slopes, strict=True)
        )
    return best


def exact(flow):
    """In float64, with as many sub-steps."""
    twin = copy.deepcopy(flow).double()
    twin.substeps = flow.count()
    return twin


# rounding of float64 in differences of near pairs, of values up to a thousand
ROUNDING = 1 + 1e-9


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activation", ["LeakyReLU", "Tanh", "Softplus"])
def test_no_pair_is_moved_apart(operator, method, activation):
    for span, scale in ((2.0, 1.0), (3e-6, 1e3), (0.7, 2.0), (1e3, 0.05), (5.0, 1e-3)):
        flow = make_flow(operator, method, activation, span, scale)
        assert flow.gain_bound() == 1.0
        assert largest_ratio(exact(flow), domain(flow.operator)) <= ROUNDING


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("method", METHODS)
def test_nor_right_after_an_enormous_step_of_the_optimiser_or_another_checkpoint(operator, method):
    flow = make_flow(operator, method)
    shape, before = domain(flow.operator), flow.operator.norm
    flow(torch.randn(8, *shape)).square().sum().backward()
    weight = flow.operator.weight
    torch.optim.SGD([weight], 1.5 * float(weight.detach().norm() / weight.grad.norm())).step()
    assert flow.operator.norm > 1.2 * before
    assert flow.count() > 1
    assert largest_ratio(exact(flow), shape, steps=4) <= ROUNDING
    state = flow.state_dict()
    state["operator.weight"] = 1.5 * state["operator.weight"]
    other = make_flow(operator, method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other.load_state_dict(state)
    assert other.count() > flow.count()
    assert largest_ratio(exact(other), shape, steps=2) <= ROUNDING


@pytest.mark.parametrize("stiffness", [2.05, 3.0, 8.0])
@pytest.mark.parametrize("method", METHODS)
def test_too_long_a_step_does_move_pairs_apart_and_its_bound_holds(method, stiffness):
    for activation in ("LeakyReLU", "Tanh"):
        flow = make_flow("dense", method, activation, span=stiffness, scale=1.0, substeps=1)
        flow.operator.weight.data /= flow.operator.norm_bound()
        flow.bias.data.zero_()
        found = largest_ratio(exact(flow), domain(flow.operator), steps=30)
        assert found <= flow.gain_bound() * ROUNDING
        assert flow.gain_bound() > 1
        if method == "euler" or stiffness == 8.0:
            assert found > 1.005


@pytest.mark.parametrize(
    ("matrix", "weights"),
    [
        ([[0, 0], [1, 0]], [1 / 2, 1 / 2]),
        ([[0, 0, 0, 0], [1 / 2, 0, 0, 0], [0, 1 / 2, 0, 0], [0, 0, 1, 0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
    ],
)
def test_the_radius_of_circle_contractivity_is_1(matrix, weights):
    # (Dahlquist & Jeltsch, 1979): r is the largest number with BA + AᵀB − bbᵀ + B/r positive semidefinite
    a, b = torch.tensor(matrix, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)
    form = torch.diag(b) @ a + a.T @ torch.diag(b) - torch.outer(b, b)
    assert float(torch.linalg.eigvalsh(form + torch.diag(b))[0]) == pytest.approx(0, abs=1e-12)
    assert float(torch.linalg.eigvalsh(form + torch.diag(b) / 1.01)[0]) < -1e-4


def test_the_number_of_substeps_is_the_smallest_that_is_enough():
    flow = make_flow("dense", span=3.0, scale=1.0)
    weight = flow.operator.weight.detach() / flow.operator.norm_bound()
    for norm, expected in ((1e-3, 1), (0.81, 1), (0.82, 2), (1.15, 2), (1.16, 3), (10.0, 151), (25.0, 938)):
        flow.operator.weight.data = weight * norm
        needed = 1.5 * norm**2
        assert max(1, math.ceil(needed)) == expected or norm == 10.0
        # the quick norm may exceed the true one where many are taken anyway
        assert expected <= flow.count() <= 1.2 * expected
        if expected <= 3:
            assert flow.count() == expected
        assert flow.radius(flow.count()) >= norm * (1 - 1e-6)
    assert make_flow("dense", substeps=7).count() == 7


def test_more_than_1000_substeps_are_refused():
    flow = make_flow("dense", span=3.0, scale=30.0)
    with pytest.raises(SettingError, match=r"^span=3.0: needs .* sub-steps where ‖A‖ = ") as caught:
        flow(torch.zeros(1, 6))
    assert "\n" not in str(caught.value)
    flow.operator.weight.data[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="is not finite"):
        flow(torch.zeros(1, 6))


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_substeps_converge_to_the_flow_at_the_order_of_the_method(method, order):
    flow = make_flow("zeros", method, "Tanh", scale=1.0).double()
    x, errors = torch.randn(4, 2, 5, 4, dtype=torch.float64), []
    fine = make_flow("zeros", "rk4", "Tanh", scale=1.0, substeps=400).double()
    for flow.substeps in (8, 16):
        with torch.no_grad():
            errors.append(float((flow(x) - fine(x)).norm()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def test_the_flow_descends_its_potential():
    flow = make_flow("dense", activation="ReLU")
    x = torch.randn(64, 6)

    def potential(x):
        return torch.relu(flow.operator(x) + flow.bias).square().sum(dim=1) / 2

    assert bool((potential(flow(x)) <= potential(x) + 1e-6).all())
    torch.testing.assert_close(
        flow.field(x), -torch.autograd.functional.jacobian(lambda x: potential(x).sum(), x)
    )


def test_settings_out_of_range_are_refused():
    for name, settings in {
        "span": {"span": 0.0},
        "method": {"method": "midpoint"},
        "substeps": {"substeps": 0},
    }.items():
        with pytest.raises(SettingError, match=f"^{name}="):
            GradientFlow(DenseOperator(2, 2), **settings)
    with pytest.raises(SettingError, match=r"^lipschitz=None"):
        GradientFlow(DenseOperator(2, 2), activation=Monotone(nn.Tanh()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_loaded_takes_as_many_substeps_as_what_was_retracted(dtype):
    for seed in range(20):
        torch.manual_seed(seed)
        flow, other = (GradientFlow(DenseOperator(20, 20)).to(dtype) for _ in range(2))
        with torch.no_grad():
            flow.operator.weight.add_(0.1 * torch.randn_like(flow.operator.weight))
        for _ in range(2):
            flow.operator.retract_(flow.radius(1))
        other.load_state_dict(flow.state_dict())
        assert flow.count() == other.count() == 1
