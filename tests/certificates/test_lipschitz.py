import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nonexpansive_networks import METHODS, exact, network, unit
from torch import nn

from lightning_attractors.certificates import (
    l2_radii,
    lipschitz_bounds,
    margin_radii,
    pair_constants,
    pair_radii,
)
from lightning_attractors.dynamics.nonexpansive import (
    ControlledLinear,
    DenseOperator,
    GradientFlow,
)
from lightning_attractors.errors import SettingError


def trained(method="euler"):
    """One that classifies noisy images of three classes, with the images."""
    layers, head = network(method)
    labels = torch.arange(30) % 3
    images = (torch.rand(3, 1, 8, 8)[labels] + 0.15 * torch.randn(30, 1, 8, 8)).clamp(0, 1)
    model = nn.Sequential(*layers, head).requires_grad_()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(10 * model(images), labels).backward()
        optimizer.step()
        for layer in model:
            if isinstance(layer, ControlledLinear | GradientFlow):
                layer.operator.retract_(1.0)
    model.requires_grad_(False)
    return layers, head, images, labels


def smallest_margin(model, images, labels, radii, restarts=3, steps=8):
    """The smallest lead of the label that PGD-L2 finds, in float32, inside of balls."""
    model, best = nn.Sequential(*model), torch.full((len(images),), math.inf)
    ball = (radii.view(-1, 1, 1, 1) * (1 - 1e-6)).float()
    for restart in range(restarts):
        change = ball * unit(torch.randn_like(images)) * (restart > 0)
        for step in range(steps):
            x = (images + change).requires_grad_()
            logits = model(x)
            others = logits.scatter(1, labels[:, None], -math.inf).amax(dim=1)
            lead = logits.gather(1, labels[:, None])[:, 0] - others
            best = torch.minimum(best, lead.detach())
            (slope,) = torch.autograd.grad(lead.sum(), x)
            change = change - 0.8**step * ball * unit(slope)
            sizes = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            change = change * (ball / sizes.clamp(min=1e-30)).clamp(max=1)
    return best


def test_the_constant_is_the_product_over_the_layers_that_data_passes():
    layers, head = network(scale=3.0)
    bounds = lipschitz_bounds(layers)
    assert list(bounds) == ["1", "2", "3", "4", "6"]
    assert list(bounds.values()) == pytest.approx([1.0] * 5, abs=0.15)
    layers, head = network(controlled=False, span=0.5, scale=3.0)
    bounds = lipschitz_bounds(layers)
    norms = [layers[place].operator.norm_bound() for place in (1, 2, 3, 6)]
    expected = [norms[0], 0.5 * norms[1] ** 2 - 1, 0.5 * norms[2] ** 2 - 1, 1.0, 0.5 * norms[3] ** 2 - 1]
    assert list(bounds.values()) == pytest.approx(expected, rel=1e-6)
    constants = pair_constants(head, 2.0)
    differences = head.operator.weight[0] - head.operator.weight[2]
    assert float(constants[0, 2]) == pytest.approx(2 * float(differences.norm()))


def test_a_layer_that_comes_twice_counts_twice():
    layer = ControlledLinear(DenseOperator(4, 4), controlled=False)
    layer.operator.weight.data.mul_(2)
    assert list(lipschitz_bounds(nn.Sequential(layer, layer)).values()) == pytest.approx([2.0, 2.0])


def test_radii_of_a_linear_classifier_are_its_exact_distances():
    head = ControlledLinear(DenseOperator(2, 3), controlled=False)
    head.operator.weight.data = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    logits, labels = (
        torch.tensor([[6.0, 4.0, 0.0], [0.0, 8.0, 1.0], [1.0, 4.0, 0.0]]),
        torch.tensor([0, 1, 0]),
    )
    # distances to the lines where two logits are alike: (l_i - l_j) / |w_i - w_j|
    pairs = pair_radii(logits, labels, pair_constants(head))
    assert pairs.tolist() == pytest.approx([2 / 5, 8 / 5, 0.0])
    # at most √2 · ‖W‖ = √2 · 4 per unit
    found = margin_radii(logits, labels, 4.0)
    assert found.tolist() == pytest.approx([2 / (4 * math.sqrt(2)), 7 / (4 * math.sqrt(2)), 0.0])
    # rows of opposite signs attain √2 ‖W‖
    head.operator.weight.data = torch.tensor([[3.0, 4.0], [-3.0, -4.0]])
    logits, labels = torch.tensor([[1.0, -1.0]]), torch.tensor([0])
    both = pair_radii(logits, labels, pair_constants(head)), margin_radii(logits, labels, math.sqrt(50))
    assert [float(radius) for radius in both] == pytest.approx([0.2, 0.2])


@given(seed=st.integers(0, 10**6), features=st.integers(1, 9), classes=st.integers(2, 6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_pair_radii_are_never_below_margin_radii(seed, features, classes):
    numbers = torch.Generator().manual_seed(seed)
    head = ControlledLinear(DenseOperator(features, classes), controlled=False)
    head.operator.weight.data = torch.randn(classes, features, generator=numbers)
    logits = torch.randn(20, classes, generator=numbers)
    labels = logits.argmax(dim=1)
    pairs = pair_radii(logits, labels, pair_constants(head))
    margins = margin_radii(logits, labels, head.operator.norm_bound())
    assert bool((pairs >= margins * (1 - 1e-6)).all())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("controlled", [True, False])
def test_no_pair_of_images_violates_the_constant(method, controlled):
    layers, head = network(method, controlled=controlled, span=3.0, scale=1.5)
    constant = math.prod(lipschitz_bounds(layers).values()) * head.gain_bound()
    model, best = exact(layers, head), 0.0
    x, change = torch.randn(2, 12, 1, 8, 8, dtype=torch.float64)
    sizes = torch.logspace(-3, 1, 12, dtype=torch.float64).view(-1, 1, 1, 1)
    for step in range(15):
        x, change = x.detach().requires_grad_(), unit(change.detach()).requires_grad_()
        ratio = (model(x + sizes * change) - model(x)).norm(dim=1) / (sizes * change).flatten(1).norm(dim=1)
        best = max(best, float(ratio.detach().max()))
        slopes = torch.autograd.grad(ratio.sum(), (x, change))
        x, change = (v + 0.9**step * unit(slope) for v, slope in zip((x, change), slopes, strict=True))
    assert best <= constant
    assert best >= 0.2 * min(constant, 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_no_attack_succeeds_within_the_radii_and_some_do_farther_away(method):
    layers, head, images, labels = trained(method)
    radii = l2_radii(layers, head, images, labels)
    held = radii > 0
    assert held.double().mean() > 0.8
    assert float(radii[held].median()) > 0.1
    model = (*layers, head)
    assert bool((smallest_margin(model, images, labels, radii)[held] > 0).all())
    assert bool((smallest_margin(model, images, labels, 3 * radii)[held] < 0).any())


def test_radii_are_a_little_less_than_without_rounding_and_do_not_depend_on_batches():
    layers, head, images, labels = trained()
    constants = pair_constants(head, math.prod(lipschitz_bounds(layers).values()))
    plain = pair_radii(exact(layers, head)(images.double()), labels, constants)
    radii = l2_radii(layers, head, images, labels)
    held = plain > 1e-3
    assert bool((radii < plain)[held].all())
    assert bool((radii > 0.99 * plain - 1e-4)[held].all())
    torch.testing.assert_close(l2_radii(layers, head, images, labels, batch_size=7), radii)
    wrong = (labels + 1) % 3
    assert bool((l2_radii(layers, head, images, wrong)[held] == 0).all())


def test_large_sums_that_float32_cannot_tell_apart_have_no_radius():
    layers, head, images, labels = trained()
    for value in (1e8, 1e30, 1e38):
        biased = copy.deepcopy(head)
        biased.bias.data.fill_(value)
        assert bool((l2_radii(layers, biased, images, labels) == 0).all())
    biased.bias.data.fill_(math.nan)
    assert bool((l2_radii(layers, biased, images, labels) == 0).all())


class Negated(ControlledLinear):
    def forward(self, x):
        return -super().forward(x)


class Doubled(DenseOperator):
    def adjoint(self, y):
        return 2 * super().adjoint(y)


def hooked(module):
    module.register_forward_hook(lambda module, x, y: 2 * y)
    return module


def impostors():
    flow = GradientFlow(DenseOperator(4, 4))
    hooked(flow.operator)
    yield "DenseOperator", flow
    yield "Doubled", GradientFlow(Doubled(4, 4))
    flow = GradientFlow(DenseOperator(4, 4))
    hooked(flow.activation)
    yield "Monotone", flow
    flow = GradientFlow(DenseOperator(4, 4))
    hooked(flow.activation.function)
    yield "ReLU", flow
    yield "Negated", Negated(DenseOperator(4, 4))
    yield "ControlledLinear", hooked(ControlledLinear(DenseOperator(4, 4)))
    yield "Flatten", hooked(nn.Flatten())
    yield "Linear", nn.Linear(4, 4)
    yield "BatchNorm1d", nn.BatchNorm1d(4)


def test_layers_that_are_not_known_or_may_compute_something_else_are_refused():
    head = ControlledLinear(DenseOperator(4, 3))
    for name, layer in impostors():
        for call in (
            lipschitz_bounds,
            lambda layers: l2_radii(layers, head, torch.ones(1, 4), torch.tensor([0])),
        ):
            with pytest.raises(
                SettingError, match=rf"^module='{name}': must|^module='{name}': has no"
            ) as caught:
                call(nn.Sequential(layer))
            assert "\n" not in str(caught.value)
    with pytest.raises(SettingError, match=r"^module='Sequential': must have no forward hooks"):
        l2_radii(hooked(nn.Sequential(nn.Flatten())), head, torch.ones(1, 4), torch.tensor([0]))
    with pytest.raises(SettingError, match=r"^module='ControlledLinear': must have no forward hooks"):
        l2_radii(nn.Sequential(), hooked(head), torch.ones(1, 4), torch.tensor([0]))


def test_what_float32_does_not_cover_is_refused():
    layers, head = network()
    labels = torch.tensor([0])
    for value in (math.nan, math.inf):
        with pytest.raises(SettingError, match=r"^images='not finite': must be finite"):
            l2_radii(layers, head, torch.full((1, 1, 8, 8), value), labels)
    with pytest.raises(SettingError, match=r"^images=torch.uint8: must be of floating point"):
        l2_radii(layers, head, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), labels)
    with pytest.raises(SettingError, match=r"^precision=torch.bfloat16: must be float32"):
        l2_radii(layers.bfloat16(), head, torch.zeros(1, 1, 8, 8), labels)
