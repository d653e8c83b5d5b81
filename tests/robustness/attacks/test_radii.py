import math

import pytest
import torch

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness import fgsm_radii, pgd_radii

COUNT = 60


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
