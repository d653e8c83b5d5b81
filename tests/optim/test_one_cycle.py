import pytest
import torch
from torch import nn

from lightning_attractors.errors import SettingError
from lightning_attractors.optim import OneCycle, build_optimizer


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.1)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5)


def network():
    return nn.ModuleDict({"first": nn.Linear(3, 4), "second": nn.Linear(4, 2)})


def test_it_scales_every_group_from_start_over_peak_to_final():
    optimizer = build_optimizer(network(), adam, {"second": sgd})
    scheduler = OneCycle(optimizer, warmup=0.3, start=0.1, final=0.01, total_steps=10)
    rates = []
    for _ in range(11):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx([0.01, 0.05])
    assert rates[3] == pytest.approx([0.1, 0.5])
    assert rates[10] == pytest.approx([0.001, 0.005])
    first = [rate[0] for rate in rates]
    assert first[:4] == sorted(first[:4])
    assert first[3:] == sorted(first[3:], reverse=True)


@pytest.mark.parametrize("settings", [{"warmup": 0.0}, {"warmup": 1.0}, {"start": -0.1}, {"final": 2.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        OneCycle(sgd(network().parameters()), **settings)
