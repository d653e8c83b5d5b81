"""Muon against torch's own and against its rule in float64; what it keeps and what it refuses."""

import copy

import pytest
import torch
from torch import nn

from lightning_attractors.errors import SettingError
from lightning_attractors.linalg import ProductSpeed
from lightning_attractors.optim import Muon, build_optimizer, muon

TORCHS = torch.optim.Muon


def matrices(*shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def train(parameters, optimizer, steps, start=0):
    """Steps with gradients that are a function of the step."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.grad = drawn.to(parameter.dtype)
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def measured(monkeypatch, float32, bfloat16):
    """Let products take so many seconds; returns the shapes that were measured."""
    shapes = []

    def measure(shape, device):
        shapes.append(shape)
        return ProductSpeed(shape, device, float32, bfloat16)

    monkeypatch.setattr(muon, "measure_products", measure)
    return shapes


def by_the_rule(parameter, steps, lr, weight_decay, momentum, nesterov, scale):
    """The docstring's equations in float64, the orthogonalisation through singular values."""
    weight, average = parameter.detach().double(), 0.0
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        gradient = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        average = momentum * average + (1 - momentum) * gradient
        direction = (1 - momentum) * gradient + momentum * average if nesterov else average
        left, values, right = torch.linalg.svd(direction, full_matrices=False)
        values = values / values.norm()
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        weight = (1 - lr * weight_decay) * weight - lr * scale * (left * values @ right)
    return weight


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(
    ("shape", "adjustment", "scale"),
    [
        ((9, 4), "original", 1.5),
        ((4, 9), "original", 1.0),
        ((4, 9), "match_rms_adamw", 0.6),
        ((4, 9), "spectral_unclamped", 2 / 3),
    ],
)
def test_steps_follow_the_rule(shape, adjustment, scale, nesterov):
    (parameter,) = matrices(shape)
    rule = by_the_rule(parameter, 3, 0.1, 0.2, 0.9, nesterov, scale)
    settings = {"lr": 0.1, "weight_decay": 0.2, "momentum": 0.9, "nesterov": nesterov}
    optimizer = Muon([parameter], **settings, adjust_lr_fn=adjustment, precision="float32")
    (found,) = train([parameter], optimizer, 3)
    torch.testing.assert_close(found.double(), rule, atol=2e-5, rtol=0)


@pytest.mark.parametrize("adjustment", ["original", "match_rms_adamw"])
def test_in_bfloat16_it_is_torchs_own(adjustment):
    shapes = [(6, 4), (6, 4), (4, 6), (5, 5)]
    settings = {"lr": 0.1, "weight_decay": 0.1, "adjust_lr_fn": adjustment}
    ours, theirs = matrices(*shapes), matrices(*shapes)
    found = train(ours, Muon(ours, **settings, precision="bfloat16"), 4)
    expected = train(theirs, TORCHS(theirs, **settings), 4)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0)


def test_a_state_of_torchs_own_can_be_taken_over():
    theirs, ours = matrices((6, 4)), matrices((6, 4))
    before = TORCHS(theirs, lr=0.1)
    train(theirs, before, 2)
    after = Muon(ours, lr=0.1, precision="bfloat16")
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    assert after.param_groups[0]["precision"] == "bfloat16"
    ours[0].data.copy_(theirs[0].data)
    (found,), (expected,) = train(ours, after, 1, start=2), train(theirs, before, 1, start=2)
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


def test_matrices_of_one_shape_take_the_steps_that_each_would_take_alone():
    together, alone = matrices((6, 4), (6, 4), (3, 3)), matrices((6, 4), (6, 4), (3, 3))
    found = train(together, Muon(together, lr=0.1, precision="float32"), 3)
    optimizers = [Muon([parameter], lr=0.1, precision="float32") for parameter in alone]
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for parameter, optimizer in zip(alone, optimizers, strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).float()
            optimizer.step()
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one, other.data, atol=1e-6, rtol=0)


def test_a_kernel_moves_as_the_matrix_that_patches_are_multiplied_with():
    (kernel,), (matrix,) = matrices((6, 2, 3, 3)), matrices((6, 18))
    (found,) = train([kernel], Muon([kernel], lr=0.1, precision="float32"), 2)
    (expected,) = train([matrix], Muon([matrix], lr=0.1, precision="float32"), 2)
    torch.testing.assert_close(found.flatten(1), expected)


@pytest.mark.parametrize(("bfloat16", "chosen"), [(1e-3, "bfloat16"), (25e-3, "float32")])
def test_the_faster_precision_is_measured_once_and_kept(bfloat16, chosen, monkeypatch):
    shapes = measured(monkeypatch, 3e-3, bfloat16)
    parameters = matrices((6, 4), (2, 3))
    optimizer = Muon(parameters, lr=0.1)
    train(parameters, optimizer, 2)
    assert shapes == [(4, 6, 4)]
    assert optimizer.param_groups[0]["precision"] == chosen
    expected = matrices((6, 4), (2, 3))
    same = train(expected, Muon(expected, lr=0.1, precision=chosen), 2)
    assert all(torch.equal(p.data, q) for p, q in zip(parameters, same, strict=True))


def test_a_resumed_optimizer_takes_the_same_steps_bit_for_bit(monkeypatch):
    parameters = matrices((6, 4))
    measured(monkeypatch, 3e-3, 1e-3)
    optimizer = Muon(parameters, lr=0.1)
    train(parameters, optimizer, 2)
    state, weights = copy.deepcopy(optimizer.state_dict()), parameters[0].detach().clone()
    (expected,) = train(parameters, optimizer, 2, start=2)
    measured(monkeypatch, 1e-3, 25e-3)  # the choice is the state's
    resumed = [nn.Parameter(weights)]
    other = Muon(resumed, lr=0.5)
    other.load_state_dict(copy.deepcopy(state))
    (found,) = train(resumed, other, 2, start=2)
    assert torch.equal(found, expected)


def test_a_precision_that_is_named_outranks_that_of_a_state():
    parameters = matrices((6, 4))
    before = Muon(parameters, precision="bfloat16")
    train(parameters, before, 1)
    after = Muon(parameters, precision="float32")
    after.load_state_dict(before.state_dict())
    assert after.param_groups[0]["precision"] == "float32"


def test_parameters_without_gradients_stay_and_a_closure_is_called():
    moved, still = matrices((3, 3), (3, 3))
    optimizer = Muon([moved, still], lr=0.1, weight_decay=0.5, precision="float32")
    before = still.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = moved.square().sum()
        loss.backward()
        return loss

    start = moved.detach().square().sum()
    assert optimizer.step(closure) == start
    assert moved.detach().square().sum() < start
    assert torch.equal(still, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0: must be finite and at least 0"),
        ({"weight_decay": float("inf")}, "weight_decay=inf"),
        ({"momentum": 1.0}, "momentum=1.0: must be at least 0 and below 1"),
        ({"ns_steps": 0}, "ns_steps=0: must be at least 1"),
        ({"ns_coefficients": (1.0, 2.0)}, "ns_coefficients="),
        ({"eps": 0.0}, "eps=0.0: must be above 0"),
        ({"adjust_lr_fn": "none"}, "adjust_lr_fn='none': must be one of"),
        ({"precision": "float16"}, "precision='float16': must be one of"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingError) as caught:
        Muon(matrices((2, 2)), **settings)
    assert str(caught.value).startswith(message)


def test_what_is_no_matrix_is_refused_by_name():
    layer = nn.Linear(3, 2)
    with pytest.raises(SettingError, match=r"parameter 1 of shape \(2,\)': must be a matrix or a kernel"):
        Muon(layer.parameters())
    with pytest.raises(SettingError, match=r"bias of shape \(2,\)': must be a matrix"):
        Muon(layer.named_parameters())
    model = nn.ModuleDict({"table": nn.Embedding(5, 3), "layer": layer, "conv": nn.Conv2d(1, 2, 3)})
    with pytest.raises(SettingError, match=r"^optimizers\['layer'\]='layer.bias': .*must be a matrix"):
        build_optimizer(model, torch.optim.SGD, {"layer": Muon})
    with pytest.raises(SettingError, match=r"^optimizers\['table'\]='table.weight': is an embedding"):
        build_optimizer(model, torch.optim.SGD, {"table": Muon})
    build_optimizer(model, torch.optim.SGD, {"conv.weight": Muon, "layer.weight": Muon})
