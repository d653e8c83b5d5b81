import copy
import logging
import math
import pickle

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from lightning_attractors.dynamics.nmode import FlowMap, NMODELayer
from lightning_attractors.errors import NonFiniteError, SettingError

TIMES, STARTS = torch.tensor([0.5, 1.0, 3.0]), torch.tensor([0.2, -0.4, 0.0])
FALLBACKS = {
    "y(0) ≠ 0": {"initial": 0.3},
    "y(0) ≠ 0, per neuron": {"initial": STARTS},
    "t̄ per neuron": {"time": TIMES},
    "second order": {"order": 2},
    "all of it": {"initial": STARTS, "time": TIMES, "order": 3},
}


def reference(gamma, decay=3.0, time=1.0, initial=0.0, order=1):
    """y(t̄) by scipy, one number at a time."""

    def solve(gamma, time, initial):
        def field(_, y):
            drive = gamma
            for _ in range(order):
                drive = np.sin(y + drive) ** 2
            return -decay * y + drive

        return solve_ivp(field, (0, float(time)), [float(initial)], rtol=1e-11, atol=1e-12).y[0, -1]

    neurons = gamma.shape[-1]
    times, starts = torch.as_tensor(time).expand(neurons), torch.as_tensor(initial).expand(neurons)
    rows = [[solve(float(g), t, s) for g, t, s in zip(row, times, starts, strict=True)] for row in gamma]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("settings", FALLBACKS.values(), ids=FALLBACKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fallbacks_agree_with_a_solver(settings, dtype):
    layer = NMODELayer(4, 3, decay=2.0, **settings).to(dtype)
    x = torch.randn(2, 4, dtype=dtype)
    gamma = layer.linear(x).detach().requires_grad_()
    value = layer(x)
    (gradient,) = torch.autograd.grad(layer.flow(gamma).sum(), gamma)
    exact, width = gamma.detach().double(), 1e-4
    above, below = (reference(exact + shift, 2.0, **settings) for shift in (width, -width))
    tolerance = 2e-5 if dtype == torch.float32 else 1e-7
    torch.testing.assert_close(value.double(), reference(exact, 2.0, **settings), rtol=0, atol=tolerance)
    torch.testing.assert_close(gradient.double(), (above - below) / (2 * width), rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("settings", [{}, *FALLBACKS.values()])
def test_a_trained_decay_has_the_gradient_of_a_difference_quotient(settings):
    layer = NMODELayer(4, 3, decay=2.0, trainable_decay=True, **settings).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(layer(x).sum(), layer.flow.log_decay)
    gamma, width = layer.linear(x).detach(), 1e-3
    above, below = (reference(gamma, 2.0 * math.exp(s), **settings).sum() for s in (width, -width))
    assert float(gradient) == pytest.approx(float(above - below) / (2 * width), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "integration"),
    [
        ({}, "flow map, λ = 3, t̄ = 1"),
        ({"decay": 1.5, "time": torch.tensor(0.05)}, "flow map, λ = 1.5, t̄ = 0.05"),
        ({"initial": torch.zeros(3)}, "flow map, λ = 3, t̄ = 1"),
        ({"initial": 0.3}, "dopri5, because y(0) ≠ 0"),
        ({"time": TIMES}, "dopri5, because t̄ is per neuron"),
        ({"order": 2}, "dopri5, because order k = 2 > 1"),
    ],
)
def test_what_integrates_is_chosen_and_said_once(settings, integration, caplog):
    with caplog.at_level(logging.INFO):
        layer = NMODELayer(4, 3, **settings)
        layer(torch.randn(2, 4))
    assert [record.getMessage() for record in caplog.records] == [f"nmODE layer: {integration}"]
    level = logging.INFO if integration.startswith("flow map") else logging.WARNING
    assert [record.levelno for record in caplog.records] == [level]
    assert layer.integration == integration
    assert integration in repr(layer)
    assert isinstance(layer.flow, FlowMap) == integration.startswith("flow map")


def test_the_solver_and_the_flow_map_are_one_flow():
    torch.manual_seed(1)
    tabulated = NMODELayer(5, 3, decay=1.5, time=2.0)
    solved = NMODELayer(5, 3, decay=1.5, time=torch.full((3,), 2.0))
    solved.linear = tabulated.linear
    x = torch.randn(2, 7, 5)
    torch.testing.assert_close(solved(x), tabulated(x), rtol=0, atol=2e-5)


@pytest.mark.parametrize("settings", [{}, {"initial": 0.3}])
def test_one_broken_input_spoils_no_other(settings):
    flow = NMODELayer(4, 3, **settings).flow
    gamma = torch.tensor([[0.3, math.nan, math.inf], [0.3, 1.0, 2.0]])
    assert flow(gamma).isfinite().tolist() == [[True, False, False], [True, True, True]]


@pytest.mark.parametrize("settings", [{}, {"initial": STARTS}])
def test_runs_under_autocast_and_survives_copies_and_casts(settings):
    layer, x = NMODELayer(4, 3, trainable_decay=True, **settings), torch.randn(2, 4)
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(x)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, expected, rtol=0, atol=2e-2)
    assert set(layer.state_dict()) == {"linear.weight", "linear.bias", "flow.log_decay"}
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(x), expected)
    doubled = copy.deepcopy(layer).double()(x.double())
    torch.testing.assert_close(doubled.float(), expected, rtol=0, atol=2e-5)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("settings", [{}, {"initial": STARTS}])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_outside_autocast_a_network_of_one_precision_stays_in_it(dtype, settings):
    network = torch.nn.Sequential(NMODELayer(4, 3, **settings), torch.nn.Linear(3, 2)).to(dtype)
    x = torch.randn(2, 4, dtype=dtype)
    network(x).sum().backward()
    assert network[0](x).dtype == network(x).dtype == network[0].linear.weight.grad.dtype == dtype
    expected = copy.deepcopy(network).double()(x.double())
    torch.testing.assert_close(network(x).double(), expected, rtol=0, atol=3e-2)


@pytest.mark.parametrize("value", [math.nan, 1000.0, -1000.0])
def test_a_diverged_decay_is_one_clear_error_of_the_solver_too(value):
    layer = NMODELayer(4, 3, initial=0.3, trainable_decay=True)
    with torch.no_grad():
        layer.flow.log_decay.fill_(value)
    with pytest.raises(NonFiniteError, match="the trained decay has diverged"):
        layer(torch.zeros(2, 4))


def test_compiles_without_a_graph_break():
    torch.compiler.reset()
    layer, x = NMODELayer(4, 3), torch.randn(2, 4)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x), rtol=0, atol=1e-6)
    gradients = [torch.autograd.grad(kind(x).sum(), layer.linear.weight)[0] for kind in (compiled, layer)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 0.0}, "decay=0.0: must be finite and above 0"),
        ({"decay": -1.0, "order": 2}, "decay=-1.0"),
        ({"time": 0.0}, "time=0.0: must be above 0"),
        ({"time": torch.tensor([1.0, -1.0, 1.0])}, "time="),
        ({"time": torch.ones(4)}, "time=.*shape"),
        ({"time": math.inf}, "time=inf: must be finite"),
        ({"initial": math.nan}, "initial=nan"),
        ({"initial": torch.zeros(2, 3)}, "initial=.*shape"),
        ({"order": 0}, "order=0: must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        NMODELayer(4, 3, **settings)


def test_a_decay_of_one_or_less_trains_with_a_warning():
    for settings in ({}, {"order": 2}):
        with pytest.warns(UserWarning, match="decay=1.0"):
            layer = NMODELayer(4, 3, decay=1.0, **settings)
        layer(torch.randn(2, 4)).sum().backward()
        assert layer.linear.weight.grad.isfinite().all()
