import pytest
import torch
from nonexpansive_networks import METHODS, exact, network, unit
from torch import nn

from lightning_attractors.certificates import evaluate_in_float32
from lightning_attractors.dynamics.nonexpansive import MONOTONE, ControlledLinear, DenseOperator, Monotone


@pytest.mark.parametrize("activation", MONOTONE)
def test_an_elementwise_function_is_as_near_as_is_taken_for_granted(activation):
    sigma = Monotone(activation)
    x = torch.cat(
        [torch.linspace(-30, 30, 400_001), torch.logspace(-30, 4, 2001), -torch.logspace(-30, 4, 2001)]
    )
    # torch's Softplus is the identity above 20, also in float64
    true = nn.functional.softplus(x.double(), threshold=40) if activation == "Softplus" else sigma(x.double())
    error = (sigma(x).double() - true).abs()
    assert bool((error <= 2.0**-19 / 3 * (true.abs() + 1)).all())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"bias": 30.0},
        {"activation": "Softplus", "span": 0.3},
        {"activation": "Tanh", "scale": 2.0},
        {"controlled": False, "scale": 2.0},
        {"activation": "ELU", "scale": 1e-3, "span": 1e3},
    ],
)
def test_float32_is_nowhere_in_a_ball_farther_from_exact_than_its_bound(method, setting):
    layers, head = network(method, **setting)
    model, twin = nn.Sequential(*layers, head), exact(layers, head)
    images = torch.randn(16, 1, 8, 8) * torch.logspace(-3, 3, 16).view(-1, 1, 1, 1)
    evaluation = evaluate_in_float32(model)(images.double())
    torch.testing.assert_close(evaluation.value, twin(images.double()), rtol=1e-12, atol=1e-12)

    def off(x):
        return (model(x).double() - twin(x.double())).norm(dim=1)

    assert bool((off(images) <= evaluation.error[:, 0]).all())
    for radius in (0.01, 1.0, 100.0):
        reach, change = evaluation.spread @ torch.tensor([1.0, radius]).double(), torch.randn_like(images)
        for _ in range(4):
            change = unit(change) * radius * (1 - 1e-5)
            x = (images + change).requires_grad_()
            far = (twin(x.double()) - evaluation.value).norm(dim=1)
            (change,) = torch.autograd.grad(far.sum(), x)
            true = (x.detach().double() - images.double()).flatten(1).norm(dim=1)
            assert bool((far <= evaluation.spread[:, 1] * true.clamp(min=radius)).all())
            assert bool((off(x.detach()) <= evaluation.error @ torch.tensor([1.0, radius]).double()).all())
            assert bool((far <= reach + 1e-3 * radius).all())


def test_the_bound_is_felt_where_a_sum_cancels():
    # 2000 products of which the largest are added first: float32 is as coarse as that
    head = ControlledLinear(DenseOperator(2000, 2), controlled=False).requires_grad_(False)
    head.operator.weight.data = torch.rand(2, 2000, generator=torch.Generator().manual_seed(0)) + 1
    images = torch.cat([torch.full((1, 1000), 1e4), torch.full((1, 1000), -1e4)], dim=1)
    evaluation = evaluate_in_float32([head])(images.double())
    off = (head(images).double() - evaluation.value).norm()
    assert 1e-4 * float(evaluation.error[0, 0]) < float(off) <= float(evaluation.error[0, 0])
