import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lightning_attractors.dynamics.plasticity import KHConv2d, normalized_update, plasticity_update
from lightning_attractors.errors import SettingError


def dense(patches, filters, p, m, delta, ranking="current"):
    """The published rule, term by term: all currents, all ranks, a gain for every unit and patch."""
    v, W = patches.double(), filters.double()
    norms = v.abs().pow(p).sum(dim=1, keepdim=True).pow(1 / p)
    v = torch.where(norms > 0, v / norms, 0)
    currents = torch.einsum("kd,pd->pk", W.abs().pow(p - 2) * W, v)
    scores = currents
    if ranking == "activity":
        scores = currents / W.abs().pow(p).sum(dim=1).pow((p - 1) / p)
    order = scores.sort(dim=1, descending=True, stable=True).indices
    gains = torch.zeros_like(currents)
    gains.scatter_(1, order[:, :1], 1.0)
    gains.scatter_(1, order[:, m - 1 : m], -delta)
    change = v[:, None] - currents[:, :, None] * W  # (P, F, D)
    return torch.einsum("pk,pkd->kd", gains, change)


def assert_agrees(result, expected, tolerance=1e-5):
    assert (result.double() - expected).abs().max() <= tolerance * expected.abs().max()


def images_of_patches(conv, images):
    return functional.unfold(images, conv.kernel_size).transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("ranking", ["current", "activity"])
@pytest.mark.parametrize("m", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("p", [2, 2.5, 3, 4, 5, 6])
def test_update_is_that_of_the_published_rule(p, m, ranking):
    patches, filters = torch.rand(300, 48), torch.randn(7, 48)
    patches[::50] = 0
    patches[1] *= 1e-12  # of no norm to speak of, yet a patch
    expected = dense(patches, filters, p, m, 0.3, ranking)
    assert_agrees(plasticity_update(patches, filters, p, m, 0.3, ranking), expected)
    exact = plasticity_update(patches.double(), filters.double(), p, m, 0.3, ranking)
    assert_agrees(exact, expected, 1e-13)


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("p", [2, 3, 4, 5, 6])
def test_ties_go_to_the_lowest_index(p, m):
    # Whole numbers, so that units really tie, on both sides of zero.
    filters = torch.tensor([[1, 2], [2, 1], [1, 2], [-1, -1], [2, 1], [-1, -1]]).float()
    patches = torch.tensor([[1, 0], [0, 1], [0, 3], [-1, 0], [0, 0], [0, -2]]).float()
    assert_agrees(plasticity_update(patches, filters, p, m, 0.5), dense(patches, filters, p, m, 0.5))


def test_the_winner_turns_to_the_patch_and_the_mth_away():
    filters = torch.tensor([[0.5, 0.0], [0.2, 0.0], [0.1, 0.0]], dtype=torch.float64)
    update = plasticity_update(torch.tensor([[5.0, 0.0]], dtype=torch.float64), filters, 2, 3, 0.1)
    expected = [1 - 0.5 * 0.5, 0.0, -0.1 * (1 - 0.1 * 0.1)]
    torch.testing.assert_close(update[:, 0], torch.tensor(expected, dtype=torch.float64))


def test_rankings_differ_by_the_scale_of_a_filter():
    filters = torch.tensor([[9.0, 9.0], [0.1, 0.0]])
    patch = torch.tensor([[1.0, 0.0]])
    assert plasticity_update(patch, filters, 2, 2, 0.0, "current")[0].abs().sum() > 0
    update = plasticity_update(patch, filters, 2, 2, 0.0, "activity")
    assert update[0].abs().sum() == 0
    assert update[1, 0] > 0


@pytest.mark.parametrize("p", [2.0, 3.0, 6.0])
def test_filters_converge_to_unit_norm(p):
    filters, patches = torch.randn(4, 6), torch.rand(200, 6)
    for t in range(2000):
        update = plasticity_update(patches, filters, p, 2, 0.0)
        filters = filters + 0.02 * (1 - t / 2000) * normalized_update(update)
    trained = (filters > 0).all(dim=1)
    assert trained.any()
    norms = filters[trained].norm(p=p, dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-3, rtol=0)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**31),
    st.floats(2, 6),
    st.integers(2, 5),
    st.sampled_from(["current", "activity"]),
    st.floats(1e-3, 1e3),
)
def test_the_order_and_the_brightness_of_patches_do_not_matter(seed, p, m, ranking, brightness):
    generator = torch.Generator().manual_seed(seed)
    patches = torch.rand(40, 12, dtype=torch.float64, generator=generator)
    filters = torch.randn(5, 12, dtype=torch.float64, generator=generator)
    update = plasticity_update(patches, filters, p, m, 0.2, ranking)
    other = plasticity_update(brightness * patches.flip(0), filters, p, m, 0.2, ranking)
    torch.testing.assert_close(other, update)
    halves = [plasticity_update(half, filters, p, m, 0.2, ranking) for half in patches.split(25)]
    torch.testing.assert_close(halves[0] + halves[1], update)


def test_nothing_to_learn_from_changes_nothing():
    filters = torch.randn(3, 4)
    for patches in (torch.zeros(0, 4), torch.zeros(5, 4)):
        update = plasticity_update(patches, filters, 4, 3, 0.1)
        assert update.eq(0).all()
        assert normalized_update(update).eq(0).all()


def test_normalized_update_has_a_largest_change_of_one():
    update = torch.tensor([[0.5, -4.0], [2.0, 0.0]])
    assert normalized_update(update).tolist() == [[0.125, -1.0], [0.5, 0.0]]


def test_filters_of_zeros_and_many_patches_are_served():
    filters, patches = torch.randn(6, 5), torch.rand(5000, 5)  # more than one chunk, and a rest
    filters[2] = 0
    for ranking in ("current", "activity"):
        update = plasticity_update(patches, filters, 3, 4, 0.2, ranking)
        if ranking == "current":
            assert_agrees(update, dense(patches, filters, 3, 4, 0.2))
        assert update.isfinite().all()


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


@pytest.mark.parametrize(
    ("name", "value"),
    [("m", 1), ("m", 5), ("p", 1.5), ("delta", -0.1), ("delta", math.nan), ("ranking", "loudness")],
)
def test_settings_out_of_range_are_refused(name, value):
    arguments = {"p": 2.0, "m": 2, "delta": 0.1, "ranking": "current", name: value}
    with pytest.raises(SettingError, match=rf"^{name}="):
        plasticity_update(torch.rand(3, 4), torch.randn(4, 4), **arguments)


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
