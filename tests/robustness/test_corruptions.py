import numpy as np
import pytest
import torch

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness import CORRUPTIONS, add_uniform, replace_pixels


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
