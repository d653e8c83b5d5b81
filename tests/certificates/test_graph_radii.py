import math

import pytest
import torch
from nmode_models import small
from nonexpansive_networks import METHODS, network

from lightning_attractors.certificates import (
    l2_graph_radius,
    l2_radii,
    linf_graph_radius,
    lipschitz_radii,
)
from lightning_attractors.models import NonexpansiveNet

TEMPERATURE = 0.1


def l2(method="euler"):
    """A radius, the logits that it is of, and the radii that the package gives."""
    layers, head = network(method)
    radius = l2_graph_radius(layers, head, TEMPERATURE, (1, 8, 8))
    return radius, lambda x: head(layers(x)) / TEMPERATURE, lambda x, y: l2_radii(layers, head, x, y)


def linf():
    model = small().requires_grad_(False)
    radius = linf_graph_radius(model.layer, model.head)
    return radius, model, lambda x, y: lipschitz_radii(model.layer, model.head, x.flatten(1), y)


@torch.no_grad()
def both(radius, logits_of, known, images):
    logits = logits_of(images)
    found = radius(images, logits)
    assert found.dtype == torch.float32
    return found, known(images, logits.argmax(dim=1))


@pytest.mark.parametrize("method", METHODS)
def test_l2_radii_are_a_little_below_those_of_the_package(method):
    found, known = both(*l2(method), torch.rand(200, 1, 8, 8))
    assert bool((found <= known).all())
    assert bool((found >= known - 0.005).all())
    assert bool((found > 0).float().mean() > 0.5)


def test_linf_radii_are_a_little_below_those_of_the_package():
    found, known = both(*linf(), torch.rand(200, 1, 6, 6))
    assert bool((found <= known).all())
    assert bool((found >= known - 1e-4).all())
    assert bool((found > 0).float().mean() > 0.5)


@pytest.mark.parametrize("kind", [l2, linf])
def test_what_rounding_may_take_is_taken_twice(kind):
    """At the image, of which the graph has float32 logits alone, and where it is moved to."""
    radius, logits_of, _ = kind()
    images = torch.rand(2, 1, 8, 8) if kind is l2 else torch.rand(2, 1, 6, 6)
    grey = images * 0 + radius.centre
    with torch.no_grad():
        single = (logits_of(images) - _doubled(kind)(images.double())).abs().max()
    once = float(radius.lost[0, 1]) / 2 / radius.unit
    assert float(single) <= once
    logits = torch.zeros(2, 3)
    logits[:, 0] = 1.99 * once
    assert not radius(grey, logits).any()
    logits[:, 0] = 2.1 * once
    assert bool((radius(grey, logits) > 0).all())


def _doubled(kind):
    if kind is linf:
        return small_double()
    layers, head = network()
    layers, head = layers.double(), head.double()
    return lambda x: head(layers(x)) / TEMPERATURE


def small_double():
    torch.manual_seed(0)
    return small().requires_grad_(False).double()


def test_what_nothing_is_known_of_has_radius_0():
    radius, logits_of, _ = linf()
    images = torch.rand(5, 1, 6, 6)
    images[0, 0, 0, 0] = 1.01
    images[1, 0, 0, 0] = -0.01
    images[2, 0, 0, 0] = math.nan
    logits = torch.tensor([[1.0, 0.0, 0.0]]).repeat(5, 1)
    logits[3] = 1.0
    found = radius(images, logits)
    assert found[:4].tolist() == [0, 0, 0, 0]
    assert found[4] > 0
    radius, logits_of, _ = l2()
    images = torch.rand(4, 1, 8, 8)
    images[0] = math.inf
    images[1] = 1e7
    images[2] = math.nan
    logits = torch.tensor([[1.0, 0.0, 0.0]]).repeat(4, 1)
    found = radius(images, logits)
    assert found[:3].tolist() == [0, 0, 0]
    assert 0 < found[3] < 1
    assert logits_of(images).shape == (4, 3)


def test_radii_hold_against_an_attack():
    torch.manual_seed(0)
    model = NonexpansiveNet(3, (1, 6, 6), widths=[4], depths=[1], strides=[2]).eval().requires_grad_(False)
    radius = l2_graph_radius(model.layers, model.head, model.temperature, (1, 6, 6))
    images = torch.rand(50, 1, 6, 6)
    logits = model(images)
    labels, radii = logits.argmax(dim=1), radius(images, logits)
    moved = images.clone()
    for _ in range(30):
        moved.requires_grad_()
        slope = torch.autograd.grad(torch.nn.functional.cross_entropy(model(moved), labels), moved)[0]
        change = (
            moved.detach() + 0.1 * torch.nn.functional.normalize(slope.flatten(1)).view_as(moved) - images
        )
        sizes = change.flatten(1).norm(dim=1)
        change *= ((radii * (1 - 1e-5)) / sizes).clamp(max=1).nan_to_num(0).view(-1, 1, 1, 1)
        moved = images + change
        assert torch.equal(model(moved).argmax(dim=1), labels)
    assert bool((radii > 0).all())
