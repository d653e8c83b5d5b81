import pytest
import torch
from torch.nn import functional

from lightning_attractors.linalg.convolution_symbols import (
    Frequencies,
    _half_plane,
    half_symbols,
    symbols,
)


def test_a_symbol_is_what_a_convolution_does_to_a_plane_wave():
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    first, second = torch.rand(2, 4, dtype=torch.float64) * 6 - 3
    found = symbols(weight, first, second).view(4, 4, 3, 2)
    row = torch.arange(5, dtype=torch.float64)
    amplitude = torch.randn(2, dtype=torch.complex128)
    for i, j in ((0, 1), (1, 0), (3, 2)):
        wave = torch.exp(1j * (row[:, None] * first[i] + row * second[j]))
        image = functional.conv2d(amplitude[:, None, None] * wave, weight.to(torch.complex128))
        # the centre of the kernel is on pixel (1, 1) where the result begins
        expected = wave[1:4, 1:4] * (found[i, j] @ amplitude)[:, None, None]
        torch.testing.assert_close(image, expected)


@pytest.mark.parametrize("points", [4, 5])
@pytest.mark.parametrize("twist", [0.0, torch.pi])
def test_half_of_the_frequencies_have_all_the_norms(points, twist):
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    frequencies = Frequencies(points, twist)
    assert len(frequencies.half()) < points
    whole = symbols(weight, frequencies.all(), frequencies.all())
    half = half_symbols(weight, (frequencies, frequencies))
    norms = [set(torch.linalg.matrix_norm(part, 2).mul(1e9).round().tolist()) for part in (whole, half)]
    assert norms[0] == norms[1]


def test_waves_are_made_once_for_a_device_and_kept_there():
    grid, weight = (Frequencies(4), Frequencies(6)), torch.randn(3, 2, 3, 3, device="meta")
    _half_plane.cache_clear()
    assert all(half_symbols(weight, grid).device == weight.device for _ in range(2))
    assert half_symbols(weight.double(), grid).dtype == torch.complex128
    assert (_half_plane.cache_info().misses, _half_plane.cache_info().hits) == (2, 1)
