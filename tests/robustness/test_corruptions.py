import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness import (
    CORRUPTIONS,
    add_uniform,
    brightness,
    gaussian_blur,
    gaussian_noise,
    replace_pixels,
    resize,
)


def generator():
    return np.random.default_rng(1)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_exactly_the_fraction_is_replaced_in_all_channels(fraction, channels):
    # An impossible pixel value: whatever is replaced is seen to be
    clean = torch.full((50, channels, 9, 8), 2.0)
    noisy = replace_pixels(clean, fraction, generator())
    replaced = noisy != clean
    assert (replaced == replaced[:, :1]).all()
    assert (replaced[:, 0].sum(dim=(1, 2)) == round(fraction * 72)).all()
    assert torch.equal(clean, torch.full_like(clean, 2.0))
    assert noisy.dtype == torch.float32


def test_replaced_pixels_are_uniform_in_place_and_value():
    noisy = replace_pixels(torch.full((20_000, 2, 3, 4), 2.0), 0.25, generator())
    replaced = noisy[:, 0] != 2
    share = replaced.float().mean(dim=0)
    assert (share - 0.25).abs().max() < 5 * (0.25 * 0.75 / 20_000) ** 0.5
    first, second = noisy[:, 0][replaced], noisy[:, 1][replaced]
    assert first.min() >= 0
    assert first.max() < 1
    assert torch.allclose(torch.histc(first, 10, 0, 1) / len(first), torch.tensor(0.1), atol=0.01)
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.02


@pytest.mark.parametrize("width", [0.0, 0.3, 0.9])
def test_added_values_are_uniform_and_every_pixels_own(width):
    images = torch.rand(500, 3, 4, 5)
    added = add_uniform(images, width, generator()) - images
    assert added.abs().max() <= width + 1e-6
    assert abs(added.mean()) < 0.02
    # The variance of U(−w, w) is w²/3.
    assert added.var().item() == pytest.approx(width**2 / 3, rel=0.03)
    correlation = torch.corrcoef(added.flatten(1).T) if width else torch.eye(60)
    assert (correlation - torch.eye(60)).abs().max() < 0.3


def test_strengths_out_of_range_are_refused():
    for corrupt, strength in ((replace_pixels, 1.1), (replace_pixels, -0.1), (add_uniform, -0.1)):
        with pytest.raises(SettingError, match=str(strength)):
            corrupt(torch.rand(1, 1, 2, 2), strength, generator())


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_corruptions_repeat_leave_their_input_alone_and_pass_empty_batches(name):
    corrupt, images = CORRUPTIONS[name], torch.rand(4, 1, 5, 5)
    before = images.clone()
    assert torch.equal(corrupt(images, 0.4, generator()), corrupt(images, 0.4, generator()))
    assert torch.equal(images, before)
    assert torch.equal(corrupt(images, 0.0, generator()), images)
    assert corrupt(images[:0], 0.5, generator()).shape == (0, 1, 5, 5)


NATURAL = [gaussian_noise, gaussian_blur, resize, brightness]


def pictures(batch=20, channels=1, height=12, width=9):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


def roughness(images):
    """Mean squared difference of neighbouring pixels, in both directions."""
    return (images.diff(dim=2).square().mean() + images.diff(dim=3).square().mean()).item()


def test_they_go_by_their_names():
    assert [CORRUPTIONS[corrupt.__name__] for corrupt in NATURAL] == NATURAL


@pytest.mark.parametrize("corrupt", NATURAL)
@given(
    strength=st.floats(0, 1),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
@settings(max_examples=25, deadline=None)
def test_images_stay_images(corrupt, strength, channels, height, width):
    # Black and white: what overshoots is seen to
    images = pictures(3, channels, height, width).round()
    changed = corrupt(images, strength, generator())
    assert changed.shape == images.shape
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(changed, corrupt(images, strength, generator()))
    assert torch.equal(corrupt(images, 0.0, generator()), images)


@pytest.mark.parametrize("corrupt", NATURAL)
def test_more_strength_is_more_harm(corrupt):
    images = pictures()
    harm = [(corrupt(images, s, generator()) - images).square().mean().item() for s in np.linspace(0, 1, 6)]
    assert all(np.diff(harm) > 0)


@pytest.mark.parametrize("corrupt", [gaussian_blur, resize])
def test_blur_and_resizing_smooth_and_keep_what_is_uniform(corrupt):
    strengths = [0.0, 0.3, 0.5, 0.7, 0.9]
    rough = [roughness(corrupt(pictures(), s, generator())) for s in strengths]
    assert all(np.diff(rough) < 0)
    grey = torch.full((2, 3, 7, 5), 0.3)
    torch.testing.assert_close(corrupt(grey, 0.6, generator()), grey)


def test_blur_spreads_a_dot_as_the_gaussian_of_its_deviation():
    dot = torch.zeros(1, 1, 41, 41)
    dot[..., 20, 20] = 1
    spread = gaussian_blur(dot, 2.0, generator())[0, 0]
    places = torch.arange(41.0) - 20
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    for profile in (spread.sum(0), spread.sum(1)):
        # Three deviations hold all but 0.3 % of the mass, which is 3 % of the variance
        assert (profile * places.square()).sum().item() == pytest.approx(4, rel=0.04)
        assert profile[22] / profile[20] == pytest.approx(np.exp(-0.5), rel=1e-3)


def test_one_pixel_is_what_the_largest_loss_leaves():
    images = pictures()
    left = resize(images, 1.0, generator())
    torch.testing.assert_close(left, left.mean(dim=(2, 3), keepdim=True).expand_as(left))
    assert (left.mean(dim=(2, 3)) - images.mean(dim=(2, 3))).abs().max() < 0.05


def test_half_the_resolution_makes_the_finest_stripes_grey():
    finer = torch.tensor([0.0, 1.0]).repeat(8).view(1, 1, 1, 16).expand(1, 1, 4, 16)
    assert resize(finer, 0.5, generator())[..., 4:12].sub(0.5).abs().max() < 0.1
    # Too little to cost a pixel
    assert torch.equal(resize(finer, 0.01, generator()), finer)


def test_noise_has_the_deviation_and_is_every_pixels_own():
    grey = torch.full((2000, 3, 3, 4), 0.5)
    noise = gaussian_noise(grey, 0.1, generator()) - grey
    assert noise.mean().abs() < 0.002
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    correlation = torch.corrcoef(noise.flatten(1).T)
    assert (correlation - torch.eye(36)).abs().max() < 0.12
    # At any strength the same noise, so that curves are smooth
    torch.testing.assert_close(gaussian_noise(grey, 0.05, generator()) - grey, noise / 2, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shift", [-1.0, -0.3, 0.2, 1.0])
def test_brightness_shifts_up_to_black_and_white(shift):
    images = pictures()
    changed = brightness(images, shift, generator())
    assert torch.equal(changed, (images + shift).clamp(0, 1))
    assert (changed.mean() > images.mean()) == (shift > 0)


@pytest.mark.parametrize(
    ("corrupt", "strength"),
    [(gaussian_noise, -0.1), (gaussian_blur, -0.1), (resize, -0.1), (resize, 1.1), (brightness, 1.1)],
)
def test_strengths_of_natural_changes_out_of_range_are_refused(corrupt, strength):
    for refused in (strength, float("nan")):
        with pytest.raises(SettingError, match=str(refused)):
            corrupt(pictures(), refused, generator())
