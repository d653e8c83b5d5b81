"""Small models of two families that are certified, and what to ask of those that are not what they seem."""

import pytest
import torch
from adversary import inner_box, margin, smallest
from torch import nn

from lightning_attractors.errors import SettingError
from lightning_attractors.models import NMODE, NonexpansiveNet

SHAPE, COUNT = (1, 8, 8), 24


def backbone():
    layers = [
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
    ]
    return nn.Sequential(*layers)


def nmode(kind=NMODE, front=None):
    return kind(3, SHAPE, backbone() if front is None else front, width=10).eval()


def nonexpansive(kind=NonexpansiveNet, **settings):
    shape = {"widths": [3], "depths": [1], "strides": [2], "dense_depth": 1, "dense_width": 8}
    return kind(3, SHAPE, **shape, **settings).eval()


FAMILIES = {"nmode": nmode, "nonexpansive": nonexpansive}


def certified(model):
    """Radii for the labels that the model gives, and images and labels."""
    images = torch.rand(COUNT, *SHAPE)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    return model.certified_radii(images, labels), images, labels


def assert_refused(model, match="="):
    """Whatever the labels are, and whether or not the model runs."""
    with pytest.raises(SettingError, match=match) as caught:
        model.certified_radii(torch.rand(COUNT, *SHAPE), torch.arange(COUNT) % 3)
    assert "\n" not in str(caught.value)


def assert_right(model):
    """Certified, and nothing within the radii changes a label."""
    radii, images, labels = certified(model)
    assert (radii > 0).double().mean() > 0.5
    if isinstance(model, NMODE):
        low, high = inner_box(images, radii, (0.0, 1.0))
        assert bool((smallest(margin(model, labels), low, high, restarts=2, steps=6) >= 0).all())
        return
    for _ in range(20):
        step = torch.randn(images.shape).double()
        step = step / step.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * (0.9999 * radii).view(-1, 1, 1, 1)
        moved = (images.double() + step).float()
        assert torch.equal(model(moved).argmax(dim=1), labels)
