import math

import pytest
import torch

from lightning_attractors.dynamics.integrate import clipped, euler, integrate, reverse, rk4, trajectory
from lightning_attractors.dynamics.planted import DoubleWellField


def decay(x):
    return -x


X = torch.tensor([1.0, -2.0], dtype=torch.float64)


@pytest.mark.parametrize(("step", "order"), [(euler, 1), (rk4, 4)])
def test_order_of_convergence(step, order):
    exact = X * math.exp(-1)
    errors = [(integrate(decay, X, 1 / n, n, step) - exact).abs().max().item() for n in (20, 40)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_euler_step_follows_the_field():
    torch.testing.assert_close(euler(decay, X, 0.25), 0.75 * X)


def test_reversed_flow_undoes_the_flow():
    field = DoubleWellField(0.3 * torch.randn(6, 6).double(), torch.tensor(0.4).double(), 0.5)
    start = torch.rand(4, 6, dtype=torch.float64)
    end = integrate(field, start, 0.01, 200, rk4)
    assert (end - start).abs().max() > 0.1
    torch.testing.assert_close(integrate(reverse(field), end, 0.01, 200, rk4), start, atol=1e-7, rtol=0)


def test_trajectory_begins_at_the_start_and_ends_at_the_final_state():
    states = trajectory(decay, X, 0.1, 7, rk4)
    assert states.shape == (8, 2)
    assert torch.equal(states[0], X)
    assert torch.equal(states[-1], integrate(decay, X, 0.1, 7, rk4))


def test_clipped_step_stays_inside_the_bound():
    grow = clipped(euler, 3.0)
    states = trajectory(lambda x: 10 * x, X, 0.1, 5, grow)
    assert states[-1].tolist() == [3.0, -3.0]
