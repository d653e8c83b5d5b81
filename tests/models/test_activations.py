import pytest
import torch
from activations import ACTIVATIONS

from lightning_attractors.models.activations import PoweredActivation


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_larger_features_differ_by_one_factor_per_filter(name):
    x, bounds = torch.rand(5, 2, 3, 3) * 4 + 0.5, torch.tensor([4.5, 200.0])
    power = 20
    exact = ACTIVATIONS[name](x.double()).pow(power)
    ratio = PoweredActivation(name, power)(x, bounds)[:, 0].double() / exact[:, 0]
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)
