import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness import fit_logistic, relative_accuracy


def published(strengths, Q, B, D, M, nu):
    """The curve as it is printed."""
    return 1 - 1 / (1 + Q * torch.exp(-B * (strengths / D - M))) ** (1 / abs(nu))


def radii_of(Q, B, D, M, nu, count=1500):
    """Radii whose shares are the published curve's, by its inverse, without those below 0."""
    reached = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    radii = D * (M - (torch.log(reached**-nu - 1) - math.log(Q)) / B)
    return radii.clamp(min=0)


@given(
    Q=st.floats(0.5, 2),
    B=st.floats(6, 12),
    D=st.floats(0.01, 0.3),
    M=st.floats(0.9, 1.2),
    nu=st.floats(0.4, 3),
)
@settings(max_examples=15, deadline=None)
def test_known_parameters_are_recovered(Q, B, D, M, nu):
    radii = radii_of(Q, B, D, M, nu)
    fit = fit_logistic(radii)
    assert fit.counts
    assert pytest.approx(D / B * (M * B + math.log(Q / nu)), rel=0.01) == fit.R
    assert pytest.approx(B / D, rel=0.05) == fit.B / fit.D
    assert fit.nu == pytest.approx(nu, rel=0.1)
    strengths = torch.linspace(0, 2 * D, 50, dtype=torch.float64)
    torch.testing.assert_close(fit(strengths), published(strengths, Q, B, D, M, nu), atol=5e-3, rtol=0)


def test_the_fit_is_the_published_function_at_its_own_parameters():
    fit = fit_logistic(radii_of(1.3, 9, 0.05, 1, 0.7))
    strengths = torch.linspace(0, 0.1, 50, dtype=torch.float64)
    torch.testing.assert_close(fit(strengths), published(strengths, fit.Q, fit.B, fit.D, fit.M, fit.nu))
    assert pytest.approx(fit.D / fit.B * (fit.M * fit.B + math.log(fit.Q / fit.nu))) == fit.R
    # The curvature of A vanishes at R, from below zero to above
    bend = fit(torch.tensor([-0.011, -0.01, -0.009, -1e-4, 0, 1e-4, 0.009, 0.01, 0.011]) + fit.R)
    curvature = bend[0::3] - 2 * bend[1::3] + bend[2::3]
    assert curvature[0] < -1e-5
    assert abs(curvature[1]) < 1e-7
    assert curvature[2] > 1e-5


def test_r_scales_with_the_radii():
    radii = radii_of(1, 8, 0.1, 1, 1)
    for factor in (1e-4, 40.0):
        fit, scaled = fit_logistic(radii), fit_logistic(factor * radii)
        assert pytest.approx(factor * fit.R, rel=1e-4) == scaled.R
        assert scaled.uncertainty == pytest.approx(factor * fit.uncertainty, rel=1e-2)
        assert pytest.approx(fit.R2, abs=1e-6) == scaled.R2


def test_noisier_radii_make_r_less_certain():
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(600, generator=generator, dtype=torch.float64)
    drawn = fit_logistic((0.05 + 0.006 * torch.logit(uniform)).clamp(min=0))
    smooth = fit_logistic(radii_of(1, 50 / 6, 0.05, 1, 1))
    assert pytest.approx(0.05, rel=0.05) == drawn.R
    assert 0 < smooth.uncertainty < drawn.uncertainty < 0.001
    assert smooth.mse < drawn.mse


def test_a_curve_in_few_steps_is_fitted_too():
    radii = radii_of(1, 8, 0.05, 1, 1)
    steps = (radii / 0.004).ceil() * 0.004
    # An image that needs six steps withstood five: A is as it was at every multiple
    assert pytest.approx(fit_logistic(radii).R, rel=0.03) == fit_logistic(steps).R


def test_the_rules_are_reported():
    few = fit_logistic(radii_of(1, 8, 0.05, 1, 1, count=500))
    assert (few.fitted, few.enough_images, few.good_fit, few.counts) == (True, False, True, False)
    radii = radii_of(1, 8, 0.05, 1, 1)
    # Half of the images withstand: the curve stays at one half
    radii[::2] = math.inf
    stays = fit_logistic(radii)
    assert stays.enough_images
    assert not stays.counts


@pytest.mark.parametrize("reach", [0.3, [i / 255 for i in range(1, 41)]])
def test_images_that_withstand_up_to_the_reach_count_against_the_fit(reach):
    broken = torch.linspace(0.05, 0.1, 600, dtype=torch.float64)
    if isinstance(reach, list):
        broken = (broken * 255).ceil() / 255
    stays = fit_logistic(torch.cat([broken, torch.full((400,), math.inf)]), reach)
    assert not stays.counts
    assert not stays.R2 >= 0.95
    # Where all images fall the plateau is at 0, as the function's is
    radii = radii_of(1, 8, 0.05, 1, 1)
    falls = fit_logistic(radii, 1.0)
    assert falls.counts
    assert pytest.approx(fit_logistic(radii).R, rel=0.01) == falls.R


@pytest.mark.parametrize(
    "radii",
    [
        torch.full((600,), math.inf),
        torch.zeros(600),
        torch.full((600,), 0.03),
        torch.tensor([0.01, 0.02, 0.03]).repeat(300),
        torch.cat([torch.zeros(300), torch.full((300,), math.inf)]),
    ],
)
def test_what_has_no_logistic_shape_is_not_fitted(radii):
    fit = fit_logistic(radii)
    assert not fit.fitted
    assert fit.reason
    assert math.isnan(fit.R)
    assert not fit.counts
    assert fit.images == len(radii)
    assert fit(torch.linspace(0, 1, 3)).isnan().all()


def test_relative_accuracy_is_the_share_beyond():
    radii = torch.tensor([0.0, 0.1, 0.1, 0.3, math.inf])
    strengths = torch.tensor([0.0, 0.05, 0.1, 0.2, 0.3, 5.0])
    torch.testing.assert_close(
        relative_accuracy(radii, strengths), torch.tensor([0.8, 0.8, 0.4, 0.4, 0.2, 0.2], dtype=torch.float64)
    )


@pytest.mark.parametrize("radii", [torch.zeros(0), torch.tensor([-0.1, 0.2]), torch.tensor([0.1, math.nan])])
def test_radii_that_are_none_are_refused(radii):
    with pytest.raises(SettingError, match="radii"):
        fit_logistic(radii)


@pytest.mark.parametrize("reach", [-0.1, math.nan, [0.1, -0.2]])
def test_a_reach_that_is_none_is_refused(reach):
    with pytest.raises(SettingError, match="reach"):
        fit_logistic(radii_of(1, 8, 0.05, 1, 1), reach)
