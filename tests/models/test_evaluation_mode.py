import pytest
from torch import nn

from lightning_attractors.models.evaluation_mode import evaluating


def test_every_part_is_evaluated_and_goes_back_to_its_own_mode():
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(3)), nn.Linear(3, 3))
    network[1].eval()
    before = [part.training for part in network.modules()]
    assert len(set(before)) == 2
    with evaluating(network):
        assert not any(part.training for part in network.modules())
    assert [part.training for part in network.modules()] == before
    with pytest.raises(ArithmeticError), evaluating(network):
        raise ArithmeticError
    assert [part.training for part in network.modules()] == before
