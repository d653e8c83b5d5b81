import math

import pytest
import torch

from lightning_attractors.dynamics.integrate import clipped, euler, euler_maruyama, integrate
from lightning_attractors.dynamics.planted import (
    DampedNoise,
    DoubleWellField,
    FiringRateField,
    HillGain,
    damping_scale,
    integrate_fused,
)
from lightning_attractors.random import keyed_generator

DT = 0.1


class Problem:
    """One integration: its differentiable inputs, and how to run it plainly and fused."""

    def __init__(self, kind, scale=0.5, bound=None, dtype=torch.float64, nodes=9):
        self.kind, self.bound = kind, bound
        self.attractors = torch.rand(3, nodes, dtype=dtype)
        coupling = (scale * torch.randn(nodes, nodes, dtype=dtype)).requires_grad_()
        self.inputs = [torch.rand(4, nodes, dtype=dtype, requires_grad=True), coupling]
        if "noisy" in kind:
            # Near attractors, where the damping has a slope
            self.inputs[0] = (self.attractors[[0, 1, 2, 0]] + 0.3 * self.inputs[0].detach()).requires_grad_()
        if kind == "double well":
            self.inputs.append(torch.tensor(0.7, dtype=dtype, requires_grad=True))

    def field(self, coupling, *gamma):
        return DoubleWellField(coupling, *gamma, 0.5) if gamma else FiringRateField(coupling, HillGain(0.1))

    def noise(self):
        generator = keyed_generator(torch.device("cpu"), 3)
        scale = damping_scale(self.attractors)
        if "noisy" not in self.kind:
            return None
        form = "published" if self.kind == "noisy as published" else "saturating"
        return DampedNoise(self.attractors, 0.4, generator, scale, form=form)

    def plain(self, x, *parameters, steps=12):
        noise = self.noise()
        step = euler if noise is None else euler_maruyama(noise)
        step = step if self.bound is None else clipped(step, self.bound)
        return integrate(self.field(*parameters), x, DT, steps, step)

    def fused(self, x, *parameters, steps=12, recompute=False):
        return integrate_fused(self.field(*parameters), x, DT, steps, self.bound, self.noise(), recompute)


@pytest.fixture(params=["double well", "firing rate", "noisy", "noisy as published"])
def kind(request):
    return request.param


@pytest.mark.parametrize(("bound", "scale"), [(None, 0.5), (0.8, 1.5)], ids=["free", "clipped"])
def test_values_and_gradients_are_those_of_the_plain_integration(kind, bound, scale):
    problem = Problem(kind, scale, bound)
    weights = torch.randn(4, 9, dtype=torch.float64)
    expected, result = problem.plain(*problem.inputs), problem.fused(*problem.inputs)
    if bound is not None:
        assert (expected.abs() == bound).any()
        assert (expected.abs() < bound).any()
    torch.testing.assert_close(result, expected)
    expected_grads = torch.autograd.grad((expected * weights).sum(), problem.inputs)
    grads = torch.autograd.grad((result * weights).sum(), problem.inputs)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad)


def test_gradcheck(kind):
    problem = Problem(kind)
    assert torch.autograd.gradcheck(lambda *values: problem.fused(*values, steps=4), problem.inputs)


@pytest.mark.parametrize("steps", [1, 12, 14])  # 14 falls into parts of 2, 4, 4 and 4
def test_steps_that_are_computed_again_give_the_same_gradients(kind, steps):
    problem = Problem(kind, scale=1.0, bound=1.2)
    kept = problem.fused(*problem.inputs, steps=steps)
    again = problem.fused(*problem.inputs, steps=steps, recompute=True)
    assert torch.equal(again, kept)
    expected = torch.autograd.grad(kept.square().sum(), problem.inputs)
    for _ in range(2):  # a second pass backwards finds another part of the history present
        grads = torch.autograd.grad(again.square().sum(), problem.inputs, retain_graph=True)
        for grad, expected_grad in zip(grads, expected, strict=True):
            torch.testing.assert_close(grad, expected_grad)


def test_noise_that_is_drawn_after_a_gradient_is_that_without_it():
    problem = Problem("noisy")
    noises = [problem.noise(), problem.noise()]
    for noise in noises:
        start = problem.inputs[0] if noise is noises[0] else problem.inputs[0].detach()
        field = problem.field(*problem.inputs[1:])
        end = integrate_fused(field, start, DT, 9, noise=noise, recompute=True)
        if noise is noises[0]:
            end.sum().backward()
    assert torch.equal(*(noise.draw(torch.empty(4, 9)) for noise in noises))


def test_memory_grows_with_the_root_of_the_steps_that_are_computed_again(monkeypatch):
    problem, empty, numbers = Problem("firing rate", nodes=13), torch.empty, []

    def counted(shape, **settings):
        numbers.append(math.prod(shape))
        return empty(shape, **settings)

    monkeypatch.setattr(torch, "empty", counted)
    problem.fused(*problem.inputs, steps=100, recompute=True).sum().backward()
    assert sum(numbers) == (11 + 10 + 10) * 4 * 13  # states, s(x) and adjoints of one part of ten


def test_noise_changes_the_outcome():
    quiet, noisy = Problem("firing rate"), Problem("noisy")
    assert (quiet.fused(*noisy.inputs) - noisy.fused(*noisy.inputs)).abs().mean() > 0.01


def test_without_gradients_the_values_are_the_same(kind):
    problem = Problem(kind)
    with torch.no_grad():
        plain = problem.fused(*problem.inputs)
    assert torch.equal(plain, problem.fused(*problem.inputs))


def test_bfloat16_products_keep_a_float32_state(kind):
    problem = Problem(kind, scale=0.1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = problem.fused(*problem.inputs)
    assert mixed.dtype == torch.float32
    exact = problem.fused(*problem.inputs)
    difference = (mixed - exact).abs().max()
    assert 0 < difference < 0.02
    grads = torch.autograd.grad(mixed.square().sum(), problem.inputs)
    expected = torch.autograd.grad(exact.square().sum(), problem.inputs)
    for grad, expected_grad in zip(grads, expected, strict=True):
        assert grad.dtype == torch.float32
        assert (grad - expected_grad).norm() < 0.05 * expected_grad.norm()


def test_two_graphs_alive_at_once_do_not_share_buffers(kind):
    problem = Problem(kind)
    problem.fused(*problem.inputs).sum().backward()  # leaves its buffers in the pool
    first, second = problem.fused(*problem.inputs), problem.fused(*problem.inputs)
    (expected,) = torch.autograd.grad(first.sum(), problem.inputs[1])
    (result,) = torch.autograd.grad(second.sum(), problem.inputs[1])
    assert torch.equal(result, expected)


def test_a_graph_can_be_used_again_after_other_graphs_came_and_went(kind):
    problem = Problem(kind)
    result = problem.fused(*problem.inputs).sum()
    expected = torch.autograd.grad(result, problem.inputs, retain_graph=True)
    problem.fused(*problem.inputs).mean().backward()
    problem.fused(*problem.inputs).mean().backward()
    for grad, expected_grad in zip(torch.autograd.grad(result, problem.inputs), expected, strict=True):
        assert torch.equal(grad, expected_grad)


def test_buffers_are_reused_once_their_graph_is_gone(monkeypatch):
    problem, empty = Problem("noisy", nodes=11), torch.empty
    histories = []

    def counted(shape, **settings):
        histories.extend([shape] if len(shape) == 3 else [])
        return empty(shape, **settings)

    monkeypatch.setattr(torch, "empty", counted)
    problem.fused(*problem.inputs).sum().backward()
    assert histories == [(13, 4, 11), *[(12, 4, 11)] * 3]  # states; s(x), noise and adjoints of 12 steps
    problem.fused(*problem.inputs).sum().backward()
    assert len(histories) == 4
