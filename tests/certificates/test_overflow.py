"""Where float32 may overflow nothing is certified, though float64 and real numbers do not."""

import pytest
import torch
from torch import nn

from lightning_attractors.certificates import interval_radii, linf_box, lipschitz_radii, propagate
from lightning_attractors.dynamics.nmode import NMODELayer

LABELS = torch.tensor([0, 0])


def linear(weight, bias=(0.0, 0.0)):
    made = nn.Linear(2, 2)
    made.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return made.requires_grad_(False)


def identity_layer():
    """Currents are the features."""
    layer = NMODELayer(2, 2)
    layer.linear = linear([[1.0, 0.0], [0.0, 1.0]])
    return layer


def test_two_layers_that_overflow_one_behind_the_other():
    """In real numbers the logits are ±1e40 times x: the label wins by far."""
    large = nn.Sequential(linear([[1e20, 0.0], [0.0, 0.0]]), nn.Identity())
    head, images = linear([[1e20, 0.0], [-1e20, 0.0]]), torch.full((2, 2), 0.5)
    assert not head(large(images)).isfinite().all()
    assert interval_radii(large, head, images, LABELS).tolist() == [0.0, 0.0]


def test_sums_that_overflow_on_the_way():
    """The logits are 0 and −1 in real numbers; in float32 the first is inf − inf."""
    head, images = linear([[3e38, -3e38], [0.0, 0.0]], (0.0, -1.0)), torch.full((2, 2), 1.0)
    assert interval_radii(nn.Flatten(), head, images, LABELS).tolist() == [0.0, 0.0]
    many = nn.Sequential(linear([[3e38, 3e38], [0.0, 0.0]]), nn.Hardtanh())
    with pytest.raises(Exception, match="Hardtanh"):
        propagate(many, *linf_box(images.double(), 0.1))
    low, high = propagate(many[0], *linf_box(images.double(), 0.1))
    assert low.isnan().all()
    assert high.isnan().all()


def test_only_the_image_that_overflows_is_lost():
    layer, head = linear([[1e25, 0.0], [0.0, 1e25]]), linear([[1.0, 0.0], [0.0, 1.0]])
    images = torch.tensor([[1.0, 0.0], [1e10, 0.0]])
    radii = interval_radii(layer, head, images, LABELS)
    assert radii[0] > 0.4
    assert radii[1] == 0


@pytest.mark.parametrize(
    ("inner", "outer", "label"),
    [
        ([[1e35, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], "currents"),
        ([[1.0, 0.0], [0.0, 1.0]], [[3e38, 3e38], [-3e38, -3e38]], "logits"),
    ],
)
def test_currents_and_logits_of_nmode_that_may_overflow(inner, outer, label):
    layer, head = identity_layer(), linear(outer, (5.0, 0.0))
    layer.linear = linear(inner)
    features = torch.tensor([[1e4, 0.3], [1.0, 0.3]])
    assert lipschitz_radii(layer, head, features, LABELS).tolist() == [0.0, 0.0], label


def test_statistics_of_batch_norm_that_are_subnormal_or_overflow():
    for scale in (1e-38, 1e35):
        norm = nn.BatchNorm2d(2).eval()
        norm.weight.data.fill_(scale)
        front = nn.Sequential(norm, nn.Flatten())
        radii = interval_radii(
            front, linear([[1.0, 0.0], [0.0, 1.0]], (1.0, 0.0)), torch.ones(2, 2, 1, 1), LABELS
        )
        assert radii.tolist() == [0.0, 0.0]
