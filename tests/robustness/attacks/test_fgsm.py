import math

import pytest
import torch
import torchattacks
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from lightning_attractors.robustness import fgsm_radii


def one_pixel(*stretches):
    """Two classes; 1 wherever the pixel lies in one of the stretches, its gradient pointing up."""

    def logits(images):
        x = images.flatten(1)[:, 0]
        inside = torch.stack([(low <= x) & (x <= high) for low, high in stretches]).any(dim=0)
        return torch.stack([1 - 0.1 * x, 0.1 * x + 2 * inside], dim=1)

    return logits


def brute_force(network, images, labels, strengths):
    """The first strength at which torchattacks' FGSM succeeds, one image and one strength at a time."""
    first = []
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        fails = [
            bool(network(torchattacks.FGSM(network, eps=strength)(image, label)).argmax(dim=1) != label)
            for strength in strengths
        ]
        first.append(strengths[fails.index(True)] if True in fails else math.inf)
    return torch.tensor(first, dtype=torch.float64)


def test_fgsm_is_the_brute_force_grid(network, data):
    images, labels = data[0][:20], data[1][:20]
    step = 1 / 300
    expected = brute_force(network, images, labels, [i * step for i in range(76)])
    found = fgsm_radii(network, images, labels, largest=0.25, resolution=step, batch_size=32)
    assert torch.equal(found.radii.isinf(), expected.isinf())
    reached = expected.isfinite()
    assert 5 < reached.sum() < 20
    # The first multiple at or beyond ρ
    crossed = reached & (expected > 0)
    radii, grid = found.radii[crossed], expected[crossed]
    assert ((radii <= grid + 1e-12) & (radii > grid - step)).all()
    assert (found.radii[expected == 0] == 0).all()
    # And within the interval the crossing to 1e-6
    for offset, wrong in ((0.0, True), (-1e-6, False)):
        moved = along(network, images[crossed], labels[crossed], radii + offset)
        assert ((network(moved).argmax(dim=1) != labels[crossed]) == wrong).all()
        if wrong:
            torch.testing.assert_close(moved, found.adversarial[crossed])


def along(network, images, labels, strengths):
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(network(leaf), labels), leaf)
    return (images + strengths.view(-1, 1, 1, 1) * gradient.sign()).clamp(0, 1).detach()


def test_the_first_failing_interval_counts_not_a_later_one():
    image, label = torch.full((3, 1, 1, 1), 0.2), torch.zeros(3, dtype=torch.int64)
    logits = one_pixel((0.5, 0.52), (0.8, 1.0))
    for batch_size in (1, 2, 64):
        fine = fgsm_radii(logits, image, label, resolution=0.01, batch_size=batch_size)
        torch.testing.assert_close(
            fine.radii, torch.full((3,), 0.3, dtype=torch.float64), atol=1.1e-6, rtol=0
        )
        # A stretch between two multiples is missed, as is said
        coarse = fgsm_radii(logits, image, label, resolution=0.13, batch_size=batch_size)
        torch.testing.assert_close(coarse.radii, torch.full((3,), 0.6).double(), atol=1.1e-6, rtol=0)


def test_largest_is_tried_and_nothing_beyond():
    image, label = torch.full((1, 1, 1, 1), 0.2), torch.tensor([0])
    logits = one_pixel((0.5, 1.0))
    assert fgsm_radii(logits, image, label, largest=0.31, resolution=0.2).radii.item() == pytest.approx(
        0.3, abs=2e-6
    )
    missed = fgsm_radii(logits, image, label, largest=0.29, resolution=0.2)
    assert missed.radii.item() == math.inf
    assert missed.steps.item() == -1
    assert missed.adversarial.item() == pytest.approx(0.49)
    assert missed.masked == 0


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    crossing=st.floats(0.011, 0.499),
    power=st.sampled_from([0.0, 0.2, 1.0, 2.0, 9.0]),
    heights=st.tuples(st.sampled_from([1e-9, 1.0, 1e9]), st.sampled_from([1e-9, 1.0, 1e9, math.inf])),
)
def test_fgsm_finds_the_crossing_of_a_margin_of_any_shape(crossing, power, heights):
    seen = 0

    def logits(images):
        nonlocal seen
        seen += 1
        pixel = images.flatten(1)[:, 0]
        beyond = pixel.detach() - 0.5 - crossing
        size = beyond.abs() ** power
        margin = torch.where(beyond < 0, -heights[0] * size, heights[1] * size).nan_to_num(nan=0)
        # The gradient, upwards, is that of the label's logit, which is 0
        return torch.stack([pixel.detach() - pixel, margin], dim=1)

    images, labels = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    found = fgsm_radii(logits, images, labels, largest=0.5, resolution=0.01, batch_size=1)
    assert found.radii.item() == pytest.approx(crossing, abs=1.001e-6)
    assert found.radii.item() >= crossing - 1e-12
    assert found.adversarial.item() - 0.5 >= crossing - 1e-12
    # 14 halvings of 0.01 give 1e-6
    assert seen <= 1 + math.ceil(crossing / 0.01) + 2 * 14 + 1


def test_fgsm_ends_in_an_interval_that_is_right_below_and_wrong_above():
    """A margin that crosses 0 ten thousand times between two multiples."""
    asked = {}

    def logits(images):
        x = images.flatten(1)[:, 0]
        wrong = (x > 0.5) & ((3e4 * math.tau * x).sin() > -0.5)
        asked.update(zip(x.tolist(), wrong.tolist(), strict=True))
        return torch.stack([1 - x, x + 3 * wrong - 1], dim=1)

    images, labels = torch.full((1, 1, 1, 1), 0.2, dtype=torch.float64), torch.tensor([0])
    found = fgsm_radii(logits, images, labels, largest=0.75, resolution=0.25)
    top = found.adversarial.item()
    assert asked[top]
    assert any(top - 1.001e-6 <= x < top and not wrong for x, wrong in asked.items())


def test_ties_count_as_the_prediction_does():
    def equal_from_a_third_on(images):
        x = images.flatten(1)[:, 0]
        return torch.stack([x.clamp(max=1 / 3), torch.full_like(x, 1 / 3) + 0 * x], dim=1)

    images = torch.full((1, 1, 1, 1), 0.1, dtype=torch.float64)
    # Class 0 is the prediction in a tie
    found = fgsm_radii(equal_from_a_third_on, images, torch.tensor([1]))
    assert found.radii.item() == pytest.approx(1 / 3 - 0.1, abs=1e-6)
