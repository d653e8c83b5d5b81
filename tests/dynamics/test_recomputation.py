import pytest
import torch

from lightning_attractors.dynamics.integrate import euler_maruyama, heun, integrate
from lightning_attractors.dynamics.recomputation import recomputed, segments


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 10, 12, 55, 400])
def test_parts_are_all_steps_and_few(steps):
    parts = segments(steps, True)
    assert sum(parts) == steps
    assert min(parts) >= 1
    assert max(parts) <= steps**0.5 + 1
    assert len(parts) <= steps**0.5 + 1
    assert segments(steps, False) == [steps]


def flight(weight, generator=None):
    step = heun
    if generator is not None:
        step = euler_maruyama(lambda x: 0.3 * x.tanh() * torch.randn(x.shape, generator=generator))
    return lambda x, count: integrate(lambda s: s @ weight.tanh() - s**3, x, 0.1, count, step)


@pytest.mark.parametrize("noisy", [False, True])
def test_values_and_gradients_are_those_of_all_steps_kept(noisy):
    weight, start = torch.randn(5, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    found = []
    for again in (False, True):
        generator = torch.Generator().manual_seed(1) if noisy else None
        fly = flight(weight, generator)
        end = recomputed(fly, start, 14, generator) if again else fly(start, 14)
        loss = end.square().sum()
        torch.autograd.grad(loss, (weight, start), retain_graph=True)
        found.append([end, *torch.autograd.grad(loss, (weight, start))])
        if generator is not None:
            found[-1].append(torch.randn(3, generator=generator))
    for kept, computed in zip(*found, strict=True):
        torch.testing.assert_close(kept, computed)


def test_less_is_kept():
    weight, start = torch.randn(5, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)

    def numbers_of(run):
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.setdefault(t.data_ptr(), t.numel()) and t, lambda t: t
        ):
            run()
        return sum(kept.values())

    fly = flight(weight)
    assert numbers_of(lambda: recomputed(fly, start, 100)) < 0.2 * numbers_of(lambda: fly(start, 100))
