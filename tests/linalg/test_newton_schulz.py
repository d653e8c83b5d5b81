"""One Newton-Schulz step, and the norm that it says it has."""

import math

import pytest
import torch

from lightning_attractors.linalg import newton_schulz_step


def with_singular_values(values, shape, dtype):
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(
        torch.randn(*shape, generator=generator, dtype=torch.float64), full_matrices=False
    )
    return (left * values @ right).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 6), (5, 40), (40, 5), (20, 700)])
@pytest.mark.parametrize("largest", [0.01, 0.9, 1.0, 1.3, 1.95])
def test_singular_values_follow_the_cubic_and_the_norm_is_no_less(shape, largest, dtype):
    values = torch.linspace(0.2, 1.0, min(shape), dtype=torch.float64) * largest
    weight = with_singular_values(values, shape, dtype)
    step, norm = newton_schulz_step(weight)
    expected = (values * (3 - values**2) / 2).abs().sort(descending=True).values
    found = torch.linalg.svdvals(step.double())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert found[0] <= norm <= 1.04


@pytest.mark.parametrize("columns", [256, 257, 1000])
def test_wide_products_are_summed_in_parts_to_the_same(columns):
    weight = torch.randn(8, columns, generator=torch.Generator().manual_seed(1)).double() / columns**0.5
    step, _ = newton_schulz_step(weight)
    torch.testing.assert_close(step, 1.5 * weight - 0.5 * weight @ weight.T @ weight)


@pytest.mark.parametrize("factor", [2.5, 1e3, 1e30, math.inf, math.nan])
def test_what_is_too_large_for_a_step_has_no_norm(factor):
    assert newton_schulz_step(factor * torch.eye(4))[1] == math.inf
