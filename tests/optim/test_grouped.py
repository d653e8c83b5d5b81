import copy

import pytest
import torch
from torch import nn

from lightning_attractors.errors import SettingError
from lightning_attractors.optim import GroupedOptimizer, build_optimizer


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.1)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5, momentum=0.9)


def network():
    torch.manual_seed(0)
    return nn.ModuleDict({"first": nn.Linear(3, 4), "second": nn.Linear(4, 2)})


def train(model, optimizer, steps, scheduler=None):
    for step in range(steps):
        x = torch.full((2, 3), 0.1 * (step + 1))
        optimizer.zero_grad()
        model["second"](model["first"](x).tanh()).square().sum().backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_every_group_is_moved_by_its_own_optimizer():
    together, apart = network(), network()
    grouped = build_optimizer(together, adam, {"second": sgd})
    assert isinstance(grouped, GroupedOptimizer)
    members = [adam(apart["first"].parameters()), sgd(apart["second"].parameters())]
    for step in range(3):
        x = torch.full((2, 3), 0.1 * (step + 1))
        apart.zero_grad()
        apart["second"](apart["first"](x).tanh()).square().sum().backward()
        for member in members:
            member.step()
    for ours, theirs in zip(train(together, grouped, 3), apart.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_longest_prefix_wins():
    grouped = build_optimizer(network(), adam, {"second": sgd, "second.bias": adam})
    assert isinstance(grouped, GroupedOptimizer)
    assert [len(group["params"]) for group in grouped.param_groups] == [2, 1, 1]


def test_a_single_optimizer_is_not_wrapped():
    assert isinstance(build_optimizer(network(), adam, {}), torch.optim.Adam)


def test_state_survives_saving_and_loading():
    model = network()
    optimizer = build_optimizer(model, adam, {"second": sgd})
    train(model, optimizer, 2)
    state, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    expected = train(model, optimizer, 2)
    other = network()
    other.load_state_dict(weights)
    resumed = build_optimizer(other, adam, {"second": sgd})
    resumed.load_state_dict(state)
    for ours, theirs in zip(train(other, resumed, 2), expected, strict=True):
        assert torch.equal(ours, theirs)
    resumed.param_groups[0]["lr"] = 7.0
    assert resumed.members[0].param_groups[0]["lr"] == 7.0


def test_prefixes_and_parameters_that_do_not_fit_are_refused():
    with pytest.raises(SettingError, match="optimizers='third'"):
        build_optimizer(network(), adam, {"third": sgd})
    with pytest.raises(SettingError, match="optimizer"):
        build_optimizer(network(), lambda parameters: torch.optim.Muon(parameters), {})
