import pytest
import torch
from published_plasticity import assert_agrees, dense
from torch.nn import functional

from lightning_attractors.dynamics.plasticity import KHConv2d, plasticity_update
from lightning_attractors.errors import SettingError


def images_of_patches(conv, images):
    return functional.unfold(images, conv.kernel_size).transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("p", [2.0, 3.0, 4.0])
def test_plasticity_of_images_is_the_update_of_all_their_patches(p):
    conv, images = KHConv2d(3, 9, 4, p), torch.rand(40, 3, 9, 8)
    images[3] = 0
    expected = dense(images_of_patches(conv, images), conv.weight.flatten(1), p, 3, 0.1)
    update = conv.plasticity(images, m=3, delta=0.1)
    assert update.shape == conv.weight.shape
    assert update.is_contiguous()
    assert not update.requires_grad
    assert_agrees(update.flatten(1), expected)
    # In lower precision units that are nearly level may change places, and nothing else changes.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = conv.plasticity(images, m=3, delta=0.1)
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - update).norm() < 0.1 * update.norm()


def test_a_fraction_of_the_patches_is_drawn_from_the_generator():
    conv, images = KHConv2d(1, 4, 1, 2.0), torch.arange(1.0, 3201).view(32, 1, 10, 10) / 3200
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([0.5, 0.1, -1.0, -2.0]).view(4, 1, 1, 1))

    def winners(fraction, seed):
        generator = torch.Generator().manual_seed(seed)
        # Every patch is 1 after normalisation and adds 0.75 to the first filter.
        return conv.plasticity(images, 2, 0.0, fraction=fraction, generator=generator)[0].item() / 0.75

    before = images.clone()
    assert winners(1.0, 0) == pytest.approx(3200)
    assert torch.equal(images, before)
    assert winners(0.25, 0) == pytest.approx(800)
    assert winners(1e-9, 0) == pytest.approx(1)
    conv, images = KHConv2d(1, 4, 2, 2.0), torch.rand(32, 1, 10, 10)
    draws = [
        conv.plasticity(images, 2, 0.1, "current", 0.1, torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_updates_by_position_add_up_to_the_update_of_all_patches():
    conv, images = KHConv2d(3, 9, 4, 3.0).double(), torch.rand(5, 3, 7, 6, dtype=torch.float64)
    updates = list(conv.plasticity_by_position(images, 3, 0.1, "activity"))
    assert len(updates) == 4 * 3
    torch.testing.assert_close(sum(updates), conv.plasticity(images, 3, 0.1, "activity"))


def test_updates_by_position_follow_the_filters_as_they_learn():
    conv, images = KHConv2d(1, 3, 2, 2.0), torch.rand(6, 1, 5, 5)
    filters = conv.weight.detach().clone()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(4))[:8].tolist()
    patches = images_of_patches(conv, images).view(6, 16, 4)
    generator = torch.Generator().manual_seed(4)
    updates = conv.plasticity_by_position(images, 2, 0.1, fraction=0.5, generator=generator)
    for position, update in zip(order, updates, strict=True):
        expected = plasticity_update(patches[:, position], filters.flatten(1), 2.0, 2, 0.1)
        torch.testing.assert_close(update.flatten(1), expected)
        with torch.no_grad():
            conv.weight.add_(update, alpha=0.1)
            filters += 0.1 * update


@pytest.mark.parametrize("p", [2.0, 3.5, 6.0])
def test_forward_gives_the_currents_of_normalised_patches(p):
    conv, images = KHConv2d(2, 5, 3, p).double(), torch.rand(4, 2, 6, 7, dtype=torch.float64)
    patches = images_of_patches(conv, images)
    unit = patches / patches.norm(p=p, dim=1, keepdim=True)
    W = conv.weight.flatten(1)
    expected = (unit @ (W.abs().pow(p - 2) * W).T).view(4, 4 * 5, 5).transpose(1, 2).view(4, 5, 4, 5)
    torch.testing.assert_close(conv(images), expected)
    inputs = images[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(conv, (inputs,))


@pytest.mark.parametrize("p", [2.0, 4.0, 6.0, 8.0])
@pytest.mark.parametrize("brightness", [0.0, 1e-12, 1e-6, 1e-5, 1 / 255, 1.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_forward_and_its_gradient_are_finite_at_dark_patches(p, brightness, mixed):
    conv = KHConv2d(3, 5, 4, p)
    images = torch.full((2, 3, 8, 8), brightness)
    images[1, :, :6] = 0
    images.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        currents = conv(images)
    assert currents.dtype == torch.float32
    (gradient,) = torch.autograd.grad(currents.square().sum(), images)
    assert currents.isfinite().all()
    assert gradient.isfinite().all()
    if brightness == 0:
        assert currents.eq(0).all()


def test_mixed_precision_costs_only_that_of_the_products():
    conv, images = KHConv2d(3, 5, 4, 6.0), torch.rand(8, 3, 10, 10)
    exact = conv(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = conv(images)
    assert 0 < (mixed - exact).abs().max() < 0.01 * exact.abs().max()


def test_a_layer_refuses_what_cannot_work():
    for settings_ in ({"p": 1.0}, {"p": 9.0}, {"kernel_size": 0}, {"num_filters": 1}, {"in_channels": 0}):
        arguments = {"in_channels": 1, "num_filters": 4, "kernel_size": 3, "p": 2.0, **settings_}
        with pytest.raises(SettingError, match=next(iter(settings_))):
            KHConv2d(**arguments)
    conv, small, enough = KHConv2d(1, 4, 3, 2.0), torch.rand(1, 1, 2, 9), torch.rand(1, 1, 3, 3)
    with pytest.raises(SettingError, match="kernel_size=3"):
        conv(small)
    with pytest.raises(SettingError, match="kernel_size=3"):
        conv.plasticity(small, 2, 0.1)
    with pytest.raises(SettingError, match="m=5"):
        conv.plasticity(enough, 5, 0.1)
    for fraction in (0.0, 1.1):
        with pytest.raises(SettingError, match="fraction"):
            conv.plasticity(enough, 2, 0.1, fraction=fraction)
        with pytest.raises(SettingError, match="fraction"):
            next(conv.plasticity_by_position(enough, 2, 0.1, fraction=fraction))


@pytest.mark.cuda
@pytest.mark.parametrize("m", [2, 5])
def test_a_device_gives_the_update_that_the_cpu_gives(m):
    conv, images = KHConv2d(3, 25, 4, 4.0), torch.rand(40, 3, 12, 12)
    expected = conv.plasticity(images, m, 0.1)
    assert_agrees(conv.cuda().plasticity(images.cuda(), m, 0.1).cpu(), expected.double())
