"""A layer type from elsewhere is told to the certificates in one call, and nothing is taken on trust."""

import pytest
import torch
from torch import nn

from lightning_attractors.certificates import (
    Evaluation,
    evaluate_in_float32,
    interval_radii,
    isometry,
    l2_radii,
    largest_size,
    lipschitz_bounds,
    propagate,
    register_rule,
    rounding_error,
)
from lightning_attractors.dynamics.nonexpansive import ControlledLinear, DenseOperator
from lightning_attractors.errors import SettingError


class Scaled(nn.Module):
    """x ↦ c x: a type that the package does not know."""

    def __init__(self, factor=0.3):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class Heir(Scaled):
    """It computes what its parent does."""


class Impostor(Scaled):
    def forward(self, x):
        return -super().forward(x)


def scaled_box(module, lower, upper):
    low, high = sorted((module.factor * lower, module.factor * upper), key=lambda end: float(end.sum()))
    if lower.dtype == torch.float64:
        error = rounding_error(abs(module.factor) * largest_size(lower, upper), 2)
        low, high = low - error, high + error
    return low, high


register_rule(
    Scaled,
    interval=scaled_box,
    lipschitz=lambda module: abs(module.factor),
    float32=lambda module: lambda x: module.factor * x,
)


def classifier(head):
    with torch.no_grad():
        (head.operator if isinstance(head, ControlledLinear) else head).weight.copy_(torch.eye(2))
        head.bias.zero_()
    return nn.Sequential(nn.Flatten(), Scaled()), head.requires_grad_(False)


# The logits are 0.3 times the pixels, so that they meet where the pixels do.
IMAGES, LABELS = torch.tensor([[[0.9, 0.1]], [[0.2, 0.3]], [[0.6, 0.4]]]), torch.tensor([0, 1, 1])


def test_one_call_gives_a_certificate_in_linf():
    radii = interval_radii(*classifier(nn.Linear(2, 2)), IMAGES, LABELS, tolerance=1e-6)
    assert radii.tolist() == pytest.approx([0.4, 0.05, 0.0], abs=3e-6)


def test_one_call_gives_a_certificate_in_l2():
    layers, head = classifier(ControlledLinear(DenseOperator(2, 2), controlled=False))
    assert lipschitz_bounds(layers) == pytest.approx({"1": 0.3})
    radii = l2_radii(layers, head, IMAGES, LABELS)
    assert radii.tolist() == pytest.approx([0.8 / 2**0.5, 0.1 / 2**0.5, 0.0], abs=1e-5)
    evaluation = evaluate_in_float32([Scaled()])(IMAGES.double())
    assert isinstance(evaluation, Evaluation)
    off = (Scaled()(IMAGES).double() - evaluation.value).flatten(1).norm(dim=1)
    assert bool((off <= evaluation.error[:, 0]).all())


def refused(call, start):
    with pytest.raises(SettingError, match=start) as caught:
        call()
    assert "\n" not in str(caught.value)


def hooked(module):
    module.register_forward_hook(lambda module, x, y: 2 * y)
    return module


@pytest.mark.parametrize("layer", [Impostor(), hooked(Scaled()), nn.Tanh()], ids=["own", "hook", "unknown"])
def test_what_may_compute_something_else_is_refused(layer):
    x, name = torch.zeros(1, 2), type(layer).__name__
    head = ControlledLinear(DenseOperator(2, 2))
    refused(lambda: propagate(nn.Sequential(layer), x, x), rf"^module='{name}': (has no interval|must have)")
    for call in (lipschitz_bounds, lambda layers: l2_radii(layers, head, x, torch.tensor([0]))):
        refused(lambda call=call: call(nn.Sequential(layer)), rf"^module='{name}': (has no L2|must have)")


def test_a_subclass_has_no_rules_but_where_all_of_the_code_is_its_parents():
    x = torch.ones(1, 2)
    assert propagate(Heir(), x, x)[0].tolist() == propagate(Scaled(), x, x)[0].tolist()
    refused(lambda: lipschitz_bounds(nn.Sequential(Heir())), "^module='Heir': has no L2 bounds")

    class Inner(nn.Conv2d):
        """Its ``forward`` is that of a convolution, what it calls is not."""

        def _conv_forward(self, x, weight, bias):
            return -super()._conv_forward(x, weight, bias)

    image = torch.ones(1, 1, 3, 3)
    refused(lambda: propagate(Inner(1, 1, 2), image, image), "^module='Inner': has no interval bounds")


def test_what_is_missing_is_said():
    class OnlyBox(nn.Module):
        def forward(self, x):
            return x

    register_rule(OnlyBox, interval=lambda module, lower, upper: (lower, upper))
    refused(lambda: lipschitz_bounds(nn.Sequential(OnlyBox())), "^module='OnlyBox': has no L2 bounds")
    register_rule(OnlyBox, lipschitz=isometry, float32=lambda module: lambda x: x)
    assert lipschitz_bounds(nn.Sequential(OnlyBox())) == {}


def test_a_second_rule_is_refused_and_changes_nothing():
    def other(module, lower, upper):
        return upper, lower

    for kind in (Scaled, nn.Linear):
        text = f"^register_rule='{kind.__name__}': has a rule already: interval"
        refused(lambda kind=kind: register_rule(kind, lipschitz=None, interval=other), text)
    refused(
        lambda: register_rule(nn.Linear, interval=other, lipschitz=lambda module: 0.0),
        "^register_rule='Linear': has a rule already: interval",
    )
    refused(lambda: lipschitz_bounds(nn.Sequential(nn.Linear(2, 2))), "^module='Linear': has no L2 bounds")
    refused(lambda: register_rule(nn.Tanh), "^register_rule='Tanh': must be given at least one")
