import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published_plasticity import assert_agrees, dense

from lightning_attractors.dynamics.plasticity import normalized_update, plasticity_update
from lightning_attractors.errors import SettingError


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


@pytest.mark.parametrize(
    ("name", "value"),
    [("m", 1), ("m", 5), ("p", 1.5), ("delta", -0.1), ("delta", math.nan), ("ranking", "loudness")],
)
def test_settings_out_of_range_are_refused(name, value):
    arguments = {"p": 2.0, "m": 2, "delta": 0.1, "ranking": "current", name: value}
    with pytest.raises(SettingError, match=rf"^{name}="):
        plasticity_update(torch.rand(3, 4), torch.randn(4, 4), **arguments)
