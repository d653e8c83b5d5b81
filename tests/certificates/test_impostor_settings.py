"""Models whose settings were changed since, and arithmetic that certificates are not of."""

import math
from contextlib import contextmanager

import pytest
import torch
from impostors import COUNT, FAMILIES, SHAPE, assert_refused, assert_right, nmode, nonexpansive
from torch import nn

from lightning_attractors.certificates import convolves_by_sums, summing_products
from lightning_attractors.certificates import guards as guards_of_certificates
from lightning_attractors.dynamics import STEPS


def changes():
    def of(part, **values):
        def change(model):
            vars(part(model)).update(values)

        return change

    def block(model):
        return model.layers[2]

    def function(new):
        def change(model):
            model.layers[2].activation.function = new

        return change

    yield "temperature", of(lambda m: m, temperature=1e-40), "^temperature=1e-40: must be from"
    yield "large temperature", of(lambda m: m, temperature=1e39), "^temperature=1e\\+39"
    yield "temperatures", of(lambda m: m, temperature=torch.tensor([1.0, 0.1, 10.0])), "^temperature=tensor"
    yield "slope", of(lambda m: m.layers[2].activation, lipschitz=0.1), "^lipschitz=0.1: must be at least"
    yield "span", of(block, span=-2.0), "^span=-2.0"
    yield "substeps", of(block, substeps=0), "^substeps=0"
    yield "not monotone", function(nn.SiLU()), "^activation='SiLU': must be monotone"
    yield "random", function(nn.RReLU(0.1, 1.0).train()), "always in the same way"
    yield "hidden", function(nn.Sequential(nn.ReLU(), nn.Linear(1, 1))), "must have no parameters"
    yield "channels", function(nn.Softmax2d()), "^activation='Softmax2d'"
    yield "certified norm", of(lambda m: m, certified_norm="linf"), "^certified_norm='linf': must be l2"


@pytest.mark.parametrize(("change", "match"), [c[1:] for c in changes()], ids=[c[0] for c in changes()])
def test_a_nonexpansive_net_that_was_changed_is_refused(change, match):
    model = nonexpansive()
    change(model)
    assert_refused(model, match)


def test_random_slopes_are_refused_in_training_and_certified_in_evaluation():
    model = nonexpansive(activation=nn.RReLU(0.1, 1.0).eval(), lipschitz=1.0)
    assert_right(model)
    assert_refused(
        model.train(), "^activation='RReLU': must act on every entry by itself, and always in the same"
    )


class OfGradients(nn.Module):
    def forward(self, x):
        return torch.relu(x) * (1.0 if torch.is_grad_enabled() else 0.3)


class OfAttacks(nn.Module):
    def forward(self, x):
        return torch.relu(x) * (1.0 if x.requires_grad else 0.3)


@pytest.mark.parametrize("kind", [OfGradients, OfAttacks])
@pytest.mark.parametrize("gradients", [False, True])
def test_what_attacks_see_and_certificates_do_not_is_refused(kind, gradients):
    model = nonexpansive(activation=kind(), lipschitz=1.0)
    with torch.set_grad_enabled(gradients):
        assert_refused(model, "must have a forward within the bounds that are certified of it")


def test_the_steps_of_flows_cannot_be_replaced():
    with pytest.raises(TypeError):
        STEPS["euler"] = lambda field, x, dt: x + 2.5 * dt * field(x)


def test_another_padding_has_another_norm():
    """Circular convolutions are larger than those of the norm that was remembered."""
    model = nonexpansive()
    operator = model.layers[2].operator
    with torch.no_grad():
        operator.weight.fill_(0.1)
    zeros = operator.norm_bound()
    operator.padding = "circular"
    assert operator.norm_bound() > 1.05 * zeros
    assert operator.norm_bound() == pytest.approx(0.1 * 9 * 3, rel=1e-3)


# Arithmetic


@contextmanager
def matmul_precision(name):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("family", FAMILIES)
def test_products_in_less_than_float32_are_refused(family):
    model = FAMILIES[family]()
    with matmul_precision("medium"):
        assert_refused(model, "^device='cpu': must take products in float32")
        with summing_products(torch.device("cpu")):
            assert_right(model)
        assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize("family", FAMILIES)
def test_convolutions_that_may_not_sum_products_are_refused(family, monkeypatch):
    model = FAMILIES[family]()
    monkeypatch.setattr(guards_of_certificates, "convolves_by_sums", lambda device: False)
    assert_refused(model, "^device='cpu': must convolve by sums of products")
    assert_right(nmode(front=nn.Flatten()))


def test_cudnn_and_nnpack_may_transform_convolutions():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert not convolves_by_sums(cuda)
    with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
        assert convolves_by_sums(cuda)
    with summing_products(cuda):
        assert convolves_by_sums(cuda)
    assert not convolves_by_sums(cuda)
    assert not convolves_by_sums(torch.device("mps"))
    assert convolves_by_sums(cpu)
    if torch.backends.nnpack.is_available():
        with torch.backends.mkldnn.flags(enabled=False):
            assert not convolves_by_sums(cpu)
            with torch.backends.nnpack.flags(enabled=False):
                assert convolves_by_sums(cpu)


def test_overflow_within_a_model_is_not_certified():
    model = nmode()
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([1e38, 3.0, math.inf]))
    images = torch.rand(COUNT, *SHAPE)
    assert model.certified_radii(images, torch.full((COUNT,), 2)).tolist() == [0.0] * COUNT
