import math

import numpy as np
import pytest
import torch
from refusals import refusal

from lightning_attractors.robustness import difference_interval, fit_logistic
from lightning_attractors.robustness.resampling import decline, resampled_inflections

TRUE_R = 0.05


def drawn(seed, count=300, nu=1.0):
    """Radii of images drawn from a generalised logistic function with R = 0.05."""
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (TRUE_R - 0.006 * torch.log((uniform**-nu - 1) / nu)).clamp(min=0)


@pytest.mark.parametrize("nu", [0.3, 1.0])
def test_the_uncertainty_covers_what_other_images_give(nu):
    fits = [fit_logistic(drawn(seed, nu=nu), resamples=100) for seed in range(100)]
    covered = [abs(fit.R - TRUE_R) < 1.96 * fit.uncertainty for fit in fits]
    assert 0.88 <= np.mean(covered) <= 0.99
    spread = np.std([fit.R for fit in fits])
    assert np.median([fit.uncertainty for fit in fits]) == pytest.approx(spread, rel=0.25)
    # Which the covariance of one fit does not come near
    assert np.mean([abs(fit.R - TRUE_R) < 1.96 * fit.fit_uncertainty for fit in fits]) < 0.3


@pytest.mark.parametrize("reach", [None, 1.0, [i / 100 for i in range(1, 21)]], ids=["none", "far", "steps"])
def test_it_is_the_spread_of_whole_fits_to_resampled_images(reach):
    radii = drawn(0, 600)
    if isinstance(reach, list):
        radii = (100 * radii).ceil() / 100
    picks = [torch.randint(600, (600,), generator=torch.Generator().manual_seed(k)) for k in range(60)]
    whole = np.std([fit_logistic(radii[pick], reach, resamples=0).R for pick in picks], ddof=1)
    assert fit_logistic(radii, reach).uncertainty == pytest.approx(whole, rel=0.35)


def test_it_is_a_function_of_the_seed_and_leaves_other_random_numbers_alone():
    radii, state = drawn(0), torch.get_rng_state()
    first = fit_logistic(radii)
    assert first == fit_logistic(radii)
    assert first.uncertainty != fit_logistic(radii, seed=1).uncertainty
    assert first.R == fit_logistic(radii, seed=1).R
    assert torch.equal(state, torch.get_rng_state())


def test_it_shrinks_with_the_root_of_the_number_of_images():
    few, many = (fit_logistic(drawn(0, count)).uncertainty for count in (500, 8000))
    assert few / many == pytest.approx(4, rel=0.3)


def test_every_refit_is_the_best_there_is():
    radii = drawn(0).numpy()
    x = np.sort(radii)
    start = (TRUE_R, 170.0, 0.0)
    (found,) = resampled_inflections(x, radii, start, 1, seed=3)
    picks = np.random.default_rng(3).integers(len(radii), size=(1, len(radii)))[0]
    accuracies = (radii[picks] > x[:, None]).mean(axis=1)

    def error(R, rate, log_nu):
        return np.square(accuracies - decline(x, R, rate, log_nu)).sum()

    # No other shape at R moved by a tenth of its uncertainty fits better
    rates, shapes = np.linspace(80, 400, 81), np.linspace(-3, 3, 121)
    at = {moved: min(error(found + moved, a, b) for a in rates for b in shapes) for moved in (-1e-3, 0, 1e-3)}
    assert at[0] < at[-1e-3]
    assert at[0] < at[1e-3]


@pytest.mark.parametrize("radii", [torch.linspace(0, 1, 700).double(), torch.rand(700).exp() - 1])
def test_curves_of_another_shape_have_one_within_the_radii(radii):
    fit = fit_logistic(radii)
    assert not fit.fitted or 0 < fit.uncertainty < float(radii.max())


def test_the_interval_of_a_difference():
    low, high = difference_interval(0.011, 3e-4, 0.007, 4e-4)
    assert (low, high) == (pytest.approx(0.004 - 1.96 * 5e-4), pytest.approx(0.004 + 1.96 * 5e-4))


def test_what_cannot_be_drawn_is_refused():
    assert "resamples=1: must be 0 or at least 2" in refusal(fit_logistic, drawn(0), resamples=1)
    assert "seed=-1: must be at least 0" in refusal(fit_logistic, drawn(0), seed=-1)
    assert math.isnan(fit_logistic(drawn(0), resamples=0).uncertainty)
