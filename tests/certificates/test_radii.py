import math

import pytest
import torch
from adversary import inner_box, margin, smallest
from torch import nn

from lightning_attractors.certificates import (
    certified_accuracy,
    finite_time_gain,
    interval_radii,
    interval_verified,
    lipschitz_radii,
    margin_constants,
    published_gain,
)
from lightning_attractors.dynamics.nmode import NMODELayer
from lightning_attractors.errors import SettingError


def trained(layers, head, images, labels):
    """The layers and head after a few steps: margins of trained networks are not those of random ones."""
    model = nn.Sequential(layers, head)
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def blobs(shape, count=24):
    """Images in [0, 1] of three classes, and their labels."""
    labels = torch.arange(count) % 3
    return (torch.rand(3, *shape)[labels] + 0.3 * torch.randn(count, *shape)).clamp(0, 1), labels


def dense():
    images, labels = blobs((1, 3, 3))
    layer = NMODELayer(9, 12, decay=2.0, time=1.5)
    return trained(nn.Sequential(nn.Flatten(), layer), nn.Linear(12, 3), images, labels), images, labels


def convolutional():
    images, labels = blobs((1, 6, 6))
    layers = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), NMODELayer(12, 8)
    )
    return trained(layers, nn.Linear(8, 3), images, labels), images, labels


@pytest.mark.parametrize("make", [dense, convolutional])
@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_no_search_finds_an_image_within_its_interval_radius(make, bounds):
    model, images, labels = make()
    radii = interval_radii(*model, images, labels, bounds=bounds)
    held = radii > 0
    assert held.double().mean() > 0.5
    found = smallest(margin(model, labels), *inner_box(images, radii, bounds), restarts=4, steps=8)
    assert bool((found[held] > 0).all())
    # and the search is able to: somewhat farther away it does find one
    farther = smallest(margin(model, labels), *inner_box(images, 6 * radii + 0.05, bounds), restarts=2)
    assert bool((farther[held] < 0).any())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_search_finds_an_image_within_its_lipschitz_radius(norm):
    model, images, labels = dense()
    (flatten, layer), head = model
    radii = lipschitz_radii(layer, head, flatten(images), labels, norm)
    held = radii > 0
    assert held.double().mean() > 0.5
    score = margin(model, labels)

    def search(radii):
        low, high = inner_box(images, radii)
        if norm == "linf":
            return smallest(score, low, high, restarts=4, steps=8)
        ball = (1 - 1e-6) * radii.float().view(-1, 1, 1, 1)

        def inside(x):
            change = x - images
            size = change.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
            return score(images + change * (ball / size))

        return smallest(inside, low, high, restarts=4, steps=8)

    assert bool((search(radii)[held] > 0).all())
    # and the search is able to: somewhat farther away it does find one
    assert bool((search(6 * radii + 0.05)[held] < 0).any())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_smaller_gain_gives_larger_radii(norm):
    model, images, labels = dense()
    (flatten, layer), head = model
    gains = [published_gain(2.0), finite_time_gain(2.0, 1.5), layer.flow.gain]
    assert gains == sorted(gains, reverse=True)
    published, finite, given = (
        lipschitz_radii(layer, head, flatten(images), labels, norm, gain) for gain in gains
    )
    exact = lipschitz_radii(layer, head, flatten(images), labels, norm)
    held = exact > 0
    assert bool((published < finite)[held].all() and (finite < exact)[held].all())
    torch.testing.assert_close(given, exact)
    # the rounding that is added to both is small beside
    ratio = gains[0] / gains[2]
    torch.testing.assert_close(exact[held], ratio * published[held], rtol=1e-3, atol=1e-9)


def test_intervals_reach_farther_than_the_margin_divided():
    model, images, labels = dense()
    (flatten, layer), head = model
    wide = interval_radii(*model, images, labels, tolerance=1e-5)
    assert bool((wide >= lipschitz_radii(layer, head, flatten(images), labels) - 1e-4).all())


@pytest.mark.parametrize(("norm", "size"), [("linf", 7.0), ("l2", 5.0)])
def test_the_lipschitz_radius_of_one_neuron_is_attained_where_it_is_steepest(norm, size):
    layer, head = NMODELayer(2, 1), nn.Linear(1, 2)
    grid = torch.linspace(0, math.pi, 2001).double()
    steepest = grid[layer.flow.derivative(grid).abs().argmax()]
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[3.0, -4.0]]))
        layer.linear.bias.fill_(steepest)
        head.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        head.bias.zero_()
    constants = margin_constants(layer, head, norm)
    assert constants[0, 1].item() == pytest.approx(3 * layer.flow.gain * size)
    assert constants[0, 0] == 0
    # logits (2y, −y) + bias that puts the boundary a little away from the origin
    start = layer(torch.zeros(1, 2)).item()
    with torch.no_grad():
        head.bias.copy_(torch.tensor([-3 * start + 0.01, 0.0]))
    radius = lipschitz_radii(layer, head, torch.zeros(1, 2), torch.tensor([0]), norm).item()
    assert radius == pytest.approx(0.01 / float(constants[0, 1]), rel=0.01)
    slope = layer.flow.derivative(steepest).sign().item()
    step = torch.tensor([[-1.0, 1.0]]) if norm == "linf" else torch.tensor([[-0.6, 0.8]])
    for share, label in ((0.98, 0), (1.05, 1)):
        assert head(layer(share * radius * slope * step)).argmax().item() == label


def test_interval_radii_of_a_plane_are_near_the_true_ones():
    images = torch.rand(40, 2)
    labels = (images.sum(dim=1) > 1).long()
    model = trained(NMODELayer(2, 8), nn.Linear(8, 2), images, labels)
    axis = torch.linspace(-0.6, 1.6, 221)
    grid = torch.cartesian_prod(axis, axis)
    wrong = model(grid).argmax(dim=1)[None, :] != labels[:, None]
    distance = (grid[None] - images[:, None]).abs().amax(dim=2)
    true = distance.masked_fill(~wrong, torch.inf).amin(dim=1).double().clamp(max=0.5)
    radii = interval_radii(*model, images, labels)
    correct = model(images).argmax(dim=1) == labels
    assert correct.double().mean() > 0.7
    assert bool((radii <= true + 0.006)[correct].all())
    assert bool((radii >= 0.25 * true - 0.006)[correct].all())
    assert bool((radii[~correct] == 0).all())


def test_a_radius_is_the_largest_verified_one_to_the_tolerance():
    model, images, labels = dense()
    radii = interval_radii(*model, images, labels, tolerance=1e-3)
    held = (radii > 0) & (radii < 0.5)
    for share in (0.0, 0.5, 1.0):
        assert bool(interval_verified(*model, images, labels, share * radii)[radii > 0].all())
    assert not bool(interval_verified(*model, images, labels, radii + 1e-3)[held].any())
    torch.testing.assert_close(interval_radii(*model, images, labels, tolerance=1e-3, batch_size=5), radii)
    assert bool((interval_radii(*model, images, labels, bounds=(0, 1)) >= radii - 1e-3).all())
    assert bool((interval_radii(*model, images, labels, largest=0.01) <= 0.01).all())


def test_misclassified_images_have_no_radius():
    model, images, _ = dense()
    wrong = (model(images).argmax(dim=1) + 1) % 3
    (flatten, layer), head = model
    assert bool((interval_radii(*model, images, wrong) == 0).all())
    assert bool((lipschitz_radii(layer, head, flatten(images), wrong) == 0).all())


def test_a_backbone_that_shrinks_distances_widens_the_radii():
    model, images, labels = dense()
    (flatten, layer), head = model
    features = flatten(images)
    plain = lipschitz_radii(layer, head, features, labels)
    shrunk = lipschitz_radii(layer, head, features, labels, backbone_constant=0.5)
    torch.testing.assert_close(shrunk, 2 * plain)
    torch.testing.assert_close(lipschitz_radii(layer, head, features, labels, batch_size=5), plain)


def test_logits_that_cannot_change_have_the_largest_radius():
    layer, head = NMODELayer(2, 3), nn.Linear(3, 2)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([1.0, 0.0]))
    radii = lipschitz_radii(layer, head, torch.zeros(2, 2), torch.tensor([0, 1]))
    assert radii.tolist() == pytest.approx([1e6, 0.0])


def test_certified_accuracy_counts_correct_images_whose_radius_reaches_the_strength():
    radii = torch.tensor([0.0, 0.1, 0.3, 0.2])
    correct = torch.tensor([True, True, True, False])
    found = certified_accuracy(radii.double(), correct, [0.0, 0.05, 0.2, 1.0])
    assert found.tolist() == [0.75, 0.5, 0.25, 0.0]


def test_settings_out_of_range_are_refused():
    layer, head, x, y = NMODELayer(2, 3), nn.Linear(3, 2), torch.zeros(1, 2), torch.tensor([0])
    for name, call in {
        "norm": lambda: lipschitz_radii(layer, head, x, y, norm="l1"),
        "gain": lambda: lipschitz_radii(layer, head, x, y, gain=0.0),
        "backbone_constant": lambda: lipschitz_radii(layer, head, x, y, backbone_constant=-1.0),
        "strength": lambda: interval_verified(layer, head, x, y, -0.1),
        "largest": lambda: interval_radii(layer, head, x, y, largest=0.0),
        "tolerance": lambda: interval_radii(layer, head, x, y, tolerance=0.0),
        "radii": lambda: certified_accuracy(torch.zeros(0), torch.zeros(0).bool(), [0.0]),
        "strengths": lambda: certified_accuracy(torch.ones(1), torch.ones(1).bool(), [-1.0]),
    }.items():
        with pytest.raises(SettingError, match=f"^{name}="):
            call()
