import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_attractors.metrics import converged_filters, f_score, negative_share, positive_share


@pytest.mark.parametrize("p", [1.0, 2.0, 4.0, 6.0])
def test_converged_filters_are_positive_and_of_unit_norm(p):
    filters = torch.rand(6, 3, 2, 2, dtype=torch.float64) + 0.1
    filters /= filters.flatten(1).norm(p=p, dim=1).view(-1, 1, 1, 1)
    filters[1, 0, 0, 0] *= -1
    filters[2] *= -1
    filters[3] *= 1 + 2e-6
    filters[4] *= 1 - 0.5e-6
    filters[5, 2, 1, 1] = 0
    assert converged_filters(filters, p).tolist() == [True, False, False, False, True, False]
    assert f_score(filters, p) == pytest.approx(2 / 6)
    assert f_score(filters, p, tolerance=1e-5) == pytest.approx(3 / 6)
    assert negative_share(filters) == pytest.approx(1 / 6)
    assert positive_share(filters) == pytest.approx(3 / 6)


def test_float32_filters_reach_the_default_tolerance():
    filters = torch.rand(50, 3, 12, 12) + 0.1
    filters /= filters.flatten(1).norm(p=4, dim=1).view(-1, 1, 1, 1)
    assert f_score(filters.requires_grad_(), 4.0) == 1


def test_filters_at_their_start_are_neither_converged_nor_negative():
    filters = torch.randn(400, 3, 4, 4)
    assert f_score(filters, 2.0) == 0
    assert negative_share(filters) == 0
    assert f_score(torch.full((2, 1, 1, 1), torch.nan), 2.0) == 0


@given(st.integers(0, 20), st.integers(0, 20), st.floats(1, 6))
def test_scores_are_shares(positive, negative, p):
    filters = torch.ones(positive + negative + 1, 4)
    filters /= filters.norm(p=p, dim=1, keepdim=True)
    filters[:negative] *= -1
    filters[-1, ::2] *= -1
    assert f_score(filters, p) == pytest.approx(positive / len(filters))
    assert negative_share(filters) == pytest.approx(negative / len(filters))
