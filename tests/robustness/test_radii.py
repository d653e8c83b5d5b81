import math

import pytest
import torch
import torchattacks
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness import fgsm_radii, pgd_radii

COUNT = 60


@pytest.fixture(scope="module")
def network():
    """A small network with kinks, in float64, where no sign hangs on rounding."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 4)]
        network = nn.Sequential(*layers).double()
        for parameter in network.parameters():
            parameter.data.mul_(3)
    return network.eval()


@pytest.fixture(scope="module")
def data(network):
    images = torch.rand(COUNT, 1, 6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        labels = network(images).argmax(dim=1)
    labels[::10] = (labels[::10] + 1) % 4  # some that are wrong to begin with
    return images, labels


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


@pytest.mark.parametrize("attack", [fgsm_radii, pgd_radii])
def test_images_do_not_feel_their_company(attack, network, data):
    together = attack(network, *data, batch_size=COUNT)
    for batch_size in (1, 7):
        apart = attack(network, *data, batch_size=batch_size)
        torch.testing.assert_close(apart.radii, together.radii, atol=1e-9, rtol=0)
        torch.testing.assert_close(apart.adversarial, together.adversarial)
        assert torch.equal(apart.steps, together.steps)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    shuffled = attack(network, data[0][order], data[1][order], batch_size=7)
    torch.testing.assert_close(shuffled.radii, together.radii[order], atol=1e-9, rtol=0)


@pytest.mark.parametrize("attack", [fgsm_radii, pgd_radii])
def test_finished_images_are_not_evaluated_again(attack, data):
    seen = 0

    def logits(images):
        nonlocal seen
        seen += len(images)
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)

    # One image withstands for long, the others fail soon: what is paid is the sum, not N times the longest
    images = torch.full((32, 1, 2, 2), 0.49)
    images[0] = 0.35
    attack(logits, images, torch.zeros(32, dtype=torch.int64), batch_size=4)
    assert seen < (32 + 32 * 3 + 40 if attack is pgd_radii else 32 + 32 * 3 + 42 + 32 * 3)


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


@pytest.mark.parametrize(("largest", "steps"), [(0.3, 12), (0.02, 12), (0.05, 7)])
def test_pgd_moves_as_torchattacks_does(largest, steps, network, data):
    images, labels = data
    found = pgd_radii(network, images, labels, largest=largest, step_size=0.007, steps=steps)
    assert (found.steps[::10] == 0).all()
    assert torch.equal(found.adversarial[::10], images[::10])
    for taken in found.steps.unique().tolist():
        count = steps if taken < 0 else taken
        rows = found.steps == taken
        attack = torchattacks.PGD(network, eps=largest, alpha=0.007, steps=count, random_start=False)
        moved = attack(images[rows], labels[rows]) if count else images[rows]
        torch.testing.assert_close(found.adversarial[rows], moved, atol=1e-12, rtol=0)
        wrong = network(moved).argmax(dim=1) != labels[rows]
        assert (wrong == (taken >= 0)).all()
        # Not a step earlier
        if taken > 1:
            earlier = torchattacks.PGD(network, eps=largest, alpha=0.007, steps=taken - 1, random_start=False)
            assert (network(earlier(images[rows], labels[rows])).argmax(dim=1) == labels[rows]).all()
        distance = (moved - images[rows]).abs().flatten(1).amax(dim=1)
        torch.testing.assert_close(found.radii[rows], distance if taken >= 0 else distance + math.inf)


def test_pgd_radius_is_the_number_of_steps_times_their_size(network, data):
    found = pgd_radii(network, *data, step_size=0.004)
    reached = found.steps > 0
    assert reached.sum() > 30
    torch.testing.assert_close(found.radii[reached], 0.004 * found.steps[reached].double())


def test_pgd_radii_of_as_many_steps_are_equal_in_float32():
    def brighter(images):
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)

    images = torch.linspace(0.3, 0.49, COUNT).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    found = pgd_radii(brighter, images, torch.zeros(COUNT, dtype=torch.int64), largest=0.15)
    reached = found.steps > 0
    assert 30 < reached.sum() < COUNT
    assert torch.equal(found.radii[reached], (found.steps[reached].double() * (1 / 255)).clamp(max=0.15))


def test_pgd_is_not_weaker_where_fgsm_takes_the_same_step(network, data):
    single = pgd_radii(network, *data, step_size=0.02, steps=1)
    line = fgsm_radii(network, *data, largest=0.02, resolution=0.02)
    assert torch.equal(single.radii.isinf(), line.radii.isinf())


@pytest.mark.parametrize("attack", [fgsm_radii, pgd_radii])
def test_vanishing_gradients_are_counted_and_not_called_robust(attack, data):
    def blind(images):
        return torch.stack([torch.ones(len(images)), 0 * images.mean(dim=(1, 2, 3)).float()], dim=1)

    labels = torch.zeros(COUNT, dtype=torch.int64)
    labels[:5] = 1
    found = attack(blind, data[0], labels)
    assert found.masked == COUNT - 5
    assert not found.gradient_vanished[:5].any()
    assert found.radii[:5].eq(0).all()
    assert found.radii[5:].isinf().all()


@pytest.mark.parametrize("attack", [fgsm_radii, pgd_radii])
def test_confidence_alone_does_not_mask(attack):
    """A cross-entropy that rounds to 0 has a gradient that does; its direction is there all the same."""

    def certain(images):
        mean = images.mean(dim=(1, 2, 3))
        return 1e6 * torch.stack([0.5 - mean, mean - 0.5], dim=1)

    found = attack(certain, torch.full((1, 1, 2, 2), 0.4), torch.tensor([0]))
    assert found.masked == 0
    assert found.radii.item() == pytest.approx(0.1, abs=1 / 255)


@pytest.mark.parametrize("attack", [fgsm_radii, pgd_radii])
def test_gradients_are_had_in_inference_mode_and_none_are_left(attack, network, data):
    expected = attack(network, *data)
    with torch.inference_mode():
        images, labels = data[0].clone(), data[1].clone()
        found = attack(network, images, labels)
    torch.testing.assert_close(found.radii, expected.radii)
    with torch.no_grad():
        torch.testing.assert_close(attack(network, *data).radii, expected.radii)
        assert not torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not expected.adversarial.requires_grad


@pytest.mark.parametrize("attack", [fgsm_radii, pgd_radii])
def test_no_images_give_no_radii(attack, network, data):
    found = attack(network, data[0][:0], data[1][:0])
    assert found.radii.shape == (0,)
    assert found.adversarial.shape == (0, 1, 6, 6)


@pytest.mark.parametrize("attack", [fgsm_radii, pgd_radii])
def test_networks_are_never_given_no_images(attack, network, data):
    def logits(images):
        # reshaping nothing is an error
        return network[4](network[:3](images).view(len(images), -1))

    torch.testing.assert_close(attack(logits, *data).radii, attack(network, *data).radii)
    broken = attack(network, *data).radii.isfinite()
    assert attack(logits, data[0][broken], data[1][broken]).radii.isfinite().all()


def nan_logits(images):
    return torch.stack([images.sum(dim=(1, 2, 3)), torch.full((len(images),), math.nan)], dim=1)


def one_logit(images):
    return images.sum(dim=(1, 2, 3))


def detached(images):
    return images.detach().flatten(1)


def nan_gradient(images):
    return (images.flatten(1) - images.flatten(1).detach()).sqrt() * 0 + 1


@pytest.mark.parametrize("attack", [fgsm_radii, pgd_radii])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": torch.full((2, 1, 2, 2), 1.5)}, "images=.*1.5.*must lie from 0 to 1"),
        ({"images": torch.full((2, 1, 2, 2), math.nan)}, "images=.*nan"),
        ({"images": torch.ones(2, 4)}, "images=.*floating point"),
        ({"labels": torch.tensor([0, 1, 2])}, "labels=.*one each"),
        ({"labels": torch.tensor([0, 4])}, r"labels=\[0, 4\].*from 0 to 3"),
        ({"labels": torch.tensor([-1, 0])}, r"labels=\[-1, 0\]"),
        ({"logits_fn": nan_logits}, "logits_fn='nan_logits'.*without nan.*2 of 2"),
        ({"logits_fn": one_logit}, "logits_fn='one_logit'.*shape"),
        ({"logits_fn": detached}, "logits_fn='detached'.*no_grad"),
        ({"logits_fn": nan_gradient}, "logits_fn='nan_gradient'.*gradient"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"largest": 0.0}, "largest=0"),
    ],
)
def test_bad_input_is_refused_in_one_line(attack, changed, message):
    arguments = {
        "logits_fn": lambda images: images.flatten(1),
        "images": torch.full((2, 1, 2, 2), 0.5),
        "labels": torch.tensor([0, 1]),
    }
    with pytest.raises(SettingError, match=message) as caught:
        attack(**{**arguments, **changed})
    assert "\n" not in str(caught.value)


def test_bad_steps_are_refused(network, data):
    for settings in ({"resolution": 0}, {"tolerance": 0}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            fgsm_radii(network, *data, **settings)
    for settings in ({"steps": 0}, {"step_size": -1}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            pgd_radii(network, *data, **settings)
