import copy
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from lightning_attractors.dynamics.nmode import FlowMap, flow_series
from lightning_attractors.errors import NonFiniteError, SettingError

DECAYS, TIMES = (1.05, 1.1, 1.5, 2.0, 3.0, 10.0), (0.05, 1.0, 5.0, 20.0)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def reference(gamma, decay, time):
    """y(t̄) and ∂y(t̄)/∂γ by a solver, the latter from its own equation; γ a float64 array."""

    def field(_, state):
        y, slope = state.reshape(2, -1)
        drive = np.sin(2 * (y + gamma))
        return np.concatenate([-decay * y + np.sin(y + gamma) ** 2, -decay * slope + drive * (slope + 1)])

    start = np.zeros(2 * len(gamma))
    solution = solve_ivp(field, (0, time), start, method="DOP853", rtol=1e-12, atol=1e-13)
    return torch.from_numpy(solution.y[:, -1].reshape(2, -1))


def sample(count, reach=50.0):
    """γ over ±reach, a part of it where Y turns, multiples of π, and a part where it is steep."""
    spread = (2 * torch.rand(count // 2) - 1) * reach
    turning = torch.randint(-15, 16, (count // 2,)) * math.pi + 0.3 * torch.randn(count // 2)
    return torch.cat([spread, turning]).clamp(-reach, reach)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("decay", DECAYS)
def test_both_precisions_agree_with_a_solver(decay, time):
    flow, gamma = FlowMap(decay, time), sample(240)
    y, slope = reference(gamma.double().numpy(), decay, time)
    steep = max(1.0, float(slope.abs().max()))
    leaf = gamma.clone().requires_grad_()
    value = flow(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    assert value.dtype == torch.float32
    assert (value - y).abs().max() <= 1e-6
    assert (gradient - slope).abs().max() <= 1e-5 * steep
    assert (flow.derivative(gamma) - slope).abs().max() <= 1e-5 * steep
    assert (flow(gamma.double()) - y).abs().max() <= 1e-11
    assert (flow.derivative(gamma.double()) - slope).abs().max() <= 1e-9 * steep


@pytest.mark.parametrize("decay", DECAYS)
def test_the_gain_is_a_bound_and_a_tight_one(decay):
    for time in TIMES:
        flow = FlowMap(decay, time)
        grid = torch.linspace(0, math.pi, 200_001, dtype=torch.float64)
        slope = FlowMap(decay, time).derivative(grid[:: 1 if time < 5 else 20]).abs()
        peak = slope.argmax() * (1 if time < 5 else 20) * grid[1]
        largest = flow.derivative(peak + torch.linspace(-1e-3, 1e-3, 2001, dtype=torch.float64)).abs().max()
        assert largest <= flow.gain <= largest * (1 + 1e-5)
        assert flow.gain <= (1 - math.exp(-(decay - 1) * time)) / (decay - 1) * (1 + 1e-5)


def test_turning_points_and_range():
    flow = FlowMap(1.5, 5.0)
    bottom, top = flow.turning_points
    ends = torch.tensor([bottom, top], dtype=torch.float64)
    torch.testing.assert_close(flow.derivative(ends), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-9)
    values = flow(torch.linspace(0, math.pi, 1001, dtype=torch.float64))
    assert flow.lowest <= values.min()
    assert values.max() <= flow.highest
    assert flow(ends).tolist() == pytest.approx([flow.lowest, flow.highest], abs=1e-10)


@pytest.mark.parametrize("device", DEVICES)
def test_large_and_broken_input(device):
    flow = FlowMap(1.1, 5.0)
    gamma = torch.logspace(4, 6, 301, device=device)
    gamma = torch.cat([gamma, -gamma])
    rounding = 2 * flow.gain * gamma.abs() * 2**-24 + 1e-6
    assert ((flow(gamma) - flow(gamma.double())).abs() <= rounding).all()
    enormous = flow(torch.tensor([1e8, -1e20, 3e38], device=device))
    assert ((enormous >= -0.1) & (enormous <= flow.highest + 0.1)).all()
    broken = torch.tensor([math.nan, math.inf, -math.inf, 1.0], device=device)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for function in (flow, flow.derivative):
            assert function(broken.to(dtype)).isfinite().tolist() == [False, False, False, True]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3, 4), (262144 + 7,), (2, 262143)])
def test_any_shape_and_stride(shape):
    flow = FlowMap()
    gamma = torch.randn(shape, requires_grad=True)
    value = flow(gamma)
    assert value.shape == shape
    torch.testing.assert_close(value.double(), flow(gamma.double()), rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(value.sum(), gamma)
    torch.testing.assert_close(gradient, flow.derivative(gamma).detach(), rtol=0, atol=1e-5)
    turned = gamma.detach().movedim(0, -1) if gamma.dim() else gamma
    torch.testing.assert_close(flow(turned).double(), flow(turned.double()), rtol=0, atol=1e-6)


def test_double_backward():
    flow = FlowMap(1.5, 5.0)
    gamma = torch.randn(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(flow, gamma)
    assert torch.autograd.gradgradcheck(flow, gamma)

    def derivatives(gamma):
        found = [flow(gamma)]
        for _ in range(3):
            found += torch.autograd.grad(found[-1].sum(), gamma, create_graph=True)
        return found

    single = torch.linspace(-4, 4, 400, requires_grad=True)
    for low, high in zip(derivatives(single), derivatives(single.double()), strict=True):
        assert (low - high).abs().max() <= 1e-5 * high.abs().max()


def test_function_transforms():
    flow, gamma = FlowMap(), torch.randn(4, 3)
    expected = torch.diag_embed(flow.derivative(gamma))
    for dtype in (torch.float32, torch.float64):
        jacobians = torch.func.vmap(torch.func.jacrev(flow))(gamma.to(dtype))
        torch.testing.assert_close(jacobians.float(), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_lower_precision_is_evaluated_in_float32(device):
    flow = FlowMap(1.5, 5.0)
    gamma = torch.randn(50, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        torch.testing.assert_close(flow(gamma), flow(gamma.double()).float(), rtol=0, atol=1e-6)
        half = gamma.bfloat16().requires_grad_()
        assert flow(half).dtype == torch.float32
        flow(half).sum().backward()
    assert half.grad.dtype == torch.bfloat16
    with torch.inference_mode():
        inferred = FlowMap(1.5, 5.0)
        torch.testing.assert_close(inferred(gamma), flow(gamma))
    leaf = gamma.clone().requires_grad_()
    inferred(leaf).sum().backward()  # what was built in inference mode can be trained with
    torch.testing.assert_close(leaf.grad, flow.derivative(gamma))


@given(
    decay=st.sampled_from([1.05, 1.5, 3.0]),
    time=st.sampled_from([0.05, 1.0, 5.0]),
    start=st.floats(-50, 50),
    length=st.one_of(st.just(0.0), st.floats(1e-9, 1e-3), st.floats(1e-3, 8)),
)
@settings(max_examples=60, deadline=None)
def test_no_value_leaves_the_image_and_both_ends_are_attained(decay, time, start, length):
    flow = FLOWS.setdefault((decay, time), FlowMap(decay, time))
    lower, upper = torch.tensor(start, dtype=torch.float64), torch.tensor(start + length, dtype=torch.float64)
    turning = (
        torch.tensor(flow.turning_points, dtype=torch.float64) + math.pi * torch.arange(-20, 20)[:, None]
    )
    inside = turning[(turning >= lower) & (turning <= upper)]
    points = torch.cat([lower + (upper - lower) * torch.linspace(0, 1, 2001, dtype=torch.float64), inside])
    values = flow(points.clamp(lower, upper))
    low, high = flow.image(lower, upper)
    assert low <= values.min() <= low + 1e-5
    assert high - 1e-5 <= values.max() <= high
    single = flow.image(lower.float(), upper.float())
    torch.testing.assert_close(torch.stack(single).double(), torch.stack([low, high]), rtol=0, atol=1e-4)


FLOWS = {}


def test_the_image_is_differentiable_in_its_ends():
    flow = FlowMap()
    top = flow.turning_points[1]
    lower = torch.tensor([0.2, top - 0.2, top + 0.2, -0.1], requires_grad=True)
    upper = torch.tensor([0.3, top + 0.1, top + 0.3, 4.0], requires_grad=True)
    low, high = flow.image(lower, upper)
    in_lower, in_upper = torch.autograd.grad(low.sum() + 2 * high.sum(), [lower, upper])
    at_lower, at_upper = flow.derivative(lower).detach(), flow.derivative(upper).detach()
    # where Y rises; across its maximum, where one end is the low; where it falls; over more than a period
    first = bool(flow(lower[1]) < flow(upper[1]))
    weights = torch.tensor([[1, first, 2, 0], [2, not first, 1, 0]])
    torch.testing.assert_close(in_lower, weights[0] * at_lower)
    torch.testing.assert_close(in_upper, weights[1] * at_upper)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_decay_has_the_gradient_of_a_difference_quotient(dtype):
    decay, time, gamma = 1.5, 5.0, sample(40)
    flow = FlowMap(decay, time, trainable_decay=True)
    (gradient,) = torch.autograd.grad(flow(gamma.to(dtype)).sum(), flow.log_decay)
    (mixed,) = torch.autograd.grad(flow.derivative(gamma.to(dtype)).sum(), flow.log_decay)
    width = 1e-4
    above, below = (reference(gamma.double().numpy(), decay * math.exp(s), time) for s in (width, -width))
    expected = ((above - below) / (2 * width)).sum(dim=1)
    assert float(gradient) == pytest.approx(float(expected[0]), rel=1e-5)
    assert float(mixed) == pytest.approx(float(expected[1]), rel=1e-4, abs=1e-4)


def test_the_tables_follow_a_trained_decay():
    flow, gamma = FlowMap(2.0, 1.0, trainable_decay=True), torch.linspace(-3, 3, 50)
    optimizer = torch.optim.SGD(flow.parameters(), lr=1.0)
    flow(gamma).mean().backward()
    optimizer.step()
    assert flow.decay > 2.0  # a faster decay makes y smaller
    fresh = FlowMap(flow.decay, 1.0)
    torch.testing.assert_close(flow(gamma), fresh(gamma), rtol=0, atol=1e-6)
    assert flow.gain == pytest.approx(fresh.gain, rel=1e-6)
    assert list(flow.state_dict()) == ["log_decay"]
    loaded = FlowMap(5.0, 1.0, trainable_decay=True)
    loaded.load_state_dict(flow.state_dict())
    torch.testing.assert_close(loaded(gamma), flow(gamma), rtol=0, atol=0)


@pytest.mark.parametrize("trainable", [False, True])
def test_copies_and_casts_leave_the_tables_whole(trainable):
    flow, gamma = FlowMap(1.5, 5.0, trainable), torch.linspace(-3, 3, 50)
    expected = flow(gamma)
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow)), flow.double(), flow.float()):
        torch.testing.assert_close(other(gamma), expected, rtol=0, atol=1e-6)
    if not trainable:
        assert not flow.state_dict()
        torch.testing.assert_close(flow.half()(gamma), expected, rtol=0, atol=0)


def test_compiles_without_a_graph_break():
    torch.compiler.reset()
    flow = FlowMap(1.5, 5.0)
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    gamma = torch.cat([sample(500), torch.tensor([math.nan, math.inf])]).requires_grad_()
    value = compiled(gamma)
    (gradient,) = torch.autograd.grad(value[:-2].sum(), gamma)
    torch.testing.assert_close(value, flow(gamma), rtol=0, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(gradient[:-2], flow.derivative(gamma)[:-2].detach(), rtol=0, atol=1e-5)


def test_settings_out_of_range_are_refused():
    for decay in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(SettingError, match="decay="):
            FlowMap(decay)
    for time in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(SettingError, match="time="):
            FlowMap(3.0, time)
    with pytest.warns(UserWarning, match="decay=0.9"):
        FlowMap(0.9)
    with pytest.warns(UserWarning, match="decay"), pytest.raises(SettingError, match="too long for λ"):
        FlowMap(0.2, 60.0)


@pytest.mark.filterwarnings("ignore:decay=")
@pytest.mark.parametrize(
    ("decay", "time"),
    [(0.5, 20.0), (0.6, 22.0), (1.0, 100.0), (1.01, 100.0), (1.001, 1000.0), (1.0, 1e9), (1.03, 1e9)],
)
def test_what_is_too_steep_for_the_accuracy_is_refused_with_few_nodes(decay, time, monkeypatch):
    monkeypatch.setattr(flow_series, "_MOST_NODES", 512)  # more would take seconds
    with pytest.raises(SettingError, match="too steep to be tabulated"):
        FlowMap(decay, time)


@pytest.mark.filterwarnings("ignore:decay=")
def test_the_steepest_flow_that_is_not_refused_is_exact():
    flow = FlowMap(0.9, 20.0)
    gamma = flow.turning_points[1] + 0.1 * torch.randn(300)
    torch.testing.assert_close(flow(gamma).double(), flow(gamma.double()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("time", [1e-200, 1e-15, 1e-8])
def test_for_a_very_short_time_the_flow_is_its_rate_times_the_time(time, trainable):
    gamma = torch.linspace(-3, 3, 50, dtype=torch.float64)
    value = FlowMap(3.0, time, trainable)(gamma)
    torch.testing.assert_close(value / time, gamma.sin().square(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("decay", "time"), [(3.0, 1e4), (3.0, 1e300), (1.2, 1e5), (1e4, 1e4)])
def test_after_a_very_long_time_the_flow_is_stationary(decay, time):
    flow, gamma = FlowMap(decay, time), torch.linspace(-3, 3, 50, dtype=torch.float64)
    y = flow(gamma)
    torch.testing.assert_close(decay * y, (y + gamma).sin().square(), rtol=0, atol=1e-11 * decay)


def test_a_failure_of_the_solver_is_an_error(monkeypatch):
    failed = SimpleNamespace(success=False, message="step size too small", y=np.zeros((64, 1)))
    monkeypatch.setattr(flow_series, "solve_ivp", lambda *_, **__: failed)
    with pytest.raises(SettingError, match="could not be solved: step size too small"):
        FlowMap()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1000.0, -1000.0])
def test_a_diverged_decay_is_one_clear_error(value):
    flow = FlowMap(trainable_decay=True)
    with torch.no_grad():
        flow.log_decay.fill_(value)
    with pytest.raises(NonFiniteError, match="the trained decay has diverged"):
        flow(torch.zeros(3))
    assert "decay=" in repr(flow)
