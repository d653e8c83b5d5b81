import pytest
import torch

from lightning_attractors.dynamics.integrate import integrate
from lightning_attractors.dynamics.nonexpansive import (
    ConvolutionOperator,
    DenseOperator,
    GradientField,
    GradientFlow,
    Monotone,
)

OPERATORS = {
    "dense": (lambda: DenseOperator(6, 4), (6,), (4,)),
    "convolution": (lambda: ConvolutionOperator(2, 3, 3, (5, 4)), (2, 5, 4), (3, 1, 1)),
}


@pytest.mark.parametrize(("make", "domain", "bias"), OPERATORS.values(), ids=OPERATORS)
def test_it_is_minus_the_gradient_of_a_convex_potential(make, domain, bias):
    operator, x = make().double(), torch.randn(7, *domain, dtype=torch.float64, requires_grad=True)
    offset = torch.randn(bias[0], dtype=torch.float64)
    # the antiderivative of ReLU
    potential = torch.relu(operator(x) + offset.view(bias)).square().sum() / 2
    (slope,) = torch.autograd.grad(potential, x)
    torch.testing.assert_close(GradientField(operator, offset, Monotone("ReLU"))(x), -slope)


@pytest.mark.parametrize(("make", "domain", "bias"), OPERATORS.values(), ids=OPERATORS)
def test_the_flow_is_its_plain_integration(make, domain, bias):
    flow, x = GradientFlow(make(), substeps=3), torch.randn(7, *domain)
    flow.bias.data.normal_()
    field = GradientField(flow.operator, flow.bias, flow.activation)
    assert torch.equal(flow.field(x), field(x))
    assert torch.equal(flow(x), integrate(field, x, flow.span / 3, 3))
