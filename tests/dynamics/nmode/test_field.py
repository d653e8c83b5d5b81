import pytest
import torch

from lightning_attractors.dynamics.integrate import integrate, rk4
from lightning_attractors.dynamics.nmode import FlowMap, NMODEField, SolvedFlow

GAMMA = torch.linspace(-4, 4, 33, dtype=torch.float64)


def test_it_is_the_published_equation():
    y = torch.rand(33, dtype=torch.float64)
    torch.testing.assert_close(NMODEField(GAMMA, 3.0)(y), -3 * y + (y + GAMMA).sin() ** 2)
    second = -3 * y + (y + (y + GAMMA).sin() ** 2).sin() ** 2
    torch.testing.assert_close(NMODEField(GAMMA, 3.0, order=2)(y), second)


@pytest.mark.parametrize("decay", [1.5, 3.0])
def test_any_integrator_takes_it_to_the_flow_map(decay):
    end = integrate(NMODEField(GAMMA, decay), torch.zeros_like(GAMMA), 0.01, 200, rk4)
    torch.testing.assert_close(end, FlowMap(decay, 2.0)(GAMMA), rtol=0, atol=1e-9)


def test_any_integrator_takes_it_to_the_solved_flow():
    times = torch.linspace(0.5, 2.0, 33, dtype=torch.float64)
    start, field = torch.full_like(GAMMA, 0.3), NMODEField(GAMMA, 2.0, order=3)
    end = integrate(lambda y: times * field(y), start, 0.01, 100, rk4)
    torch.testing.assert_close(end, SolvedFlow(2.0, times, start, 3, False)(GAMMA), rtol=0, atol=1e-8)


def test_a_trained_decay_gets_its_gradient():
    decay = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: NMODEField(GAMMA, d)(GAMMA), [decay])
