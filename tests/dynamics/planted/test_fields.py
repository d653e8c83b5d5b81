import torch

from lightning_attractors.dynamics.planted import DoubleWellField


def test_double_well_field_is_minus_the_gradient_of_its_potential():
    gamma, a = torch.tensor(0.7, dtype=torch.float64), 0.5
    x = torch.randn(6, dtype=torch.float64, requires_grad=True)
    potential = gamma * ((x**2 - a**2) ** 2).sum()
    (slope,) = torch.autograd.grad(potential, x)
    coupling = torch.randn(6, 6, dtype=torch.float64)
    torch.testing.assert_close(DoubleWellField(coupling, gamma, a)(x), -slope + coupling @ x)


def test_wells_are_where_the_uncoupled_field_vanishes_and_is_attractive():
    field = DoubleWellField(torch.zeros(1, 1), torch.tensor(0.4), 0.5)
    assert field(torch.tensor([[0.5], [-0.5], [0.0]])).abs().max() == 0
    assert field(torch.tensor([[0.6]])) < 0 < field(torch.tensor([[0.4]]))
