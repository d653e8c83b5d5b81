"""Any field vanishes at the attractors that are planted in it, and is otherwise what it was."""

import torch
from refusals import refusal

from lightning_attractors.dynamics.planted import PlantedField, block_patterns, dual_basis

ATTRACTORS = block_patterns(3, 8, low=-1.0, high=1.0)


def planted(field):
    return PlantedField(field, ATTRACTORS, dual_basis(ATTRACTORS))


def test_it_vanishes_at_the_attractors_whatever_it_was():
    weight = torch.randn(8, 8)
    field = planted(lambda x: (x @ weight).cos() + 2)
    torch.testing.assert_close(field(ATTRACTORS), torch.zeros(3, 8), atol=1e-5, rtol=0)


def test_a_field_that_vanishes_there_stays_as_it_is():
    x = torch.randn(5, 8)
    torch.testing.assert_close(planted(lambda x: x - x**3)(x), x - x**3)


def test_of_a_linear_coupling_it_leaves_the_projected_one():
    weight, x = torch.randn(8, 8), torch.randn(5, 8)
    basis, _ = torch.linalg.qr(ATTRACTORS.T)
    projected = weight @ (torch.eye(8) - basis @ basis.T)
    torch.testing.assert_close(planted(lambda x: x @ weight.T)(x), x @ projected.T, atol=1e-5, rtol=1e-5)


def test_attractors_that_depend_on_each_other_are_refused():
    message = refusal(dual_basis, torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    assert message == "attractors='rank 1': must be 2 that are linearly independent"
