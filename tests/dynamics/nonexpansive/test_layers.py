import math

import pytest
import torch
from nonexpansive_networks import OPERATORS, domain

from lightning_attractors.dynamics.nonexpansive import (
    ControlledLinear,
    ScaledAvgPool,
)
from lightning_attractors.errors import SettingError


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("scale", [1e-3, 0.5, 1.0, 3.0, 1e3])
def test_a_controlled_layer_has_norm_at_most_1(operator, scale):
    torch.manual_seed(2)
    layer = ControlledLinear(OPERATORS[operator]())
    layer.operator.weight.data = torch.randn_like(layer.operator.weight)
    layer.operator.weight.data *= scale / layer.operator.norm_bound()
    shape = domain(layer.operator)
    basis = torch.eye(math.prod(shape)).view(-1, *shape)
    with torch.no_grad():
        matrix = (layer(basis) - layer(torch.zeros(1, *shape))).flatten(1).double()
    true = float(torch.linalg.matrix_norm(matrix, 2))
    assert true <= 1 + 1e-5
    assert true * (1 - 1e-5) <= layer.gain_bound() <= 1.0 + 1e-12
    assert true >= min(1.0, scale) / 1.25 - 1e-5
    free = ControlledLinear(layer.operator, controlled=False)
    assert free.gain_bound() == pytest.approx(scale, rel=0.1)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pooling_has_norm_1(size):
    basis = torch.eye(2 * 36, dtype=torch.float64).view(-1, 2, 6, 6)
    matrix = ScaledAvgPool(size)(basis).flatten(1)
    values = torch.linalg.svdvals(matrix)
    torch.testing.assert_close(values, torch.ones_like(values))
    assert ScaledAvgPool(size).gain_bound() == 1.0


def test_pools_that_do_not_divide_are_refused():
    with pytest.raises(SettingError, match=r"^pool=4: must divide the sides of the images, \(6, 8\)"):
        ScaledAvgPool(4)(torch.zeros(1, 1, 6, 8))
    with pytest.raises(SettingError, match=r"^pool=0"):
        ScaledAvgPool(0)
