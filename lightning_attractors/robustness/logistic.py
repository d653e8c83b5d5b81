"""The robustness R of a classifier: where its accuracy falls fastest as an attack grows (Torvik, 2023)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import OptimizeWarning, curve_fit
from torch import Tensor

from lightning_attractors.errors import require
from lightning_attractors.robustness.resampling import LOG_NU, Floats, decline, resampled_inflections

_MINIMUM_IMAGES = 500
_MINIMUM_R2 = 0.95
_GRID = 201
_STARTS = (0.0, math.log(0.05), math.log(20.0))
_RESAMPLES = 200
_NORMAL_95 = 1.96


def relative_accuracy(radii: Tensor, strengths: Tensor) -> Tensor:
    """A(ε), the share of the images with an adversarial radius above ε.

    Args:
        radii: ρ of every image, shape (N,), at least one; infinite where the attack failed.
        strengths: ε, any shape.

    Returns:
        A(ε) in [0, 1], float64, in the shape of ``strengths``.

    Raises:
        SettingError: if there are no radii, or one is negative or nan.
    """
    require(len(radii) > 0, "radii", "none", "must be at least one")
    require(bool((radii >= 0).all()), "radii", float(radii.min()), "must be at least 0")
    ordered = radii.double().sort().values
    reached = torch.searchsorted(ordered, strengths.to(ordered), right=True)
    return (len(ordered) - reached).double() / len(ordered)


@dataclass(frozen=True)
class LogisticFit:
    """A generalised logistic function through A(ε), f(ε) = 1 − 1 / (1 + Q e^(−B(ε/D − M)))^(1/ν).

    Of these five parameters the function depends on three: its rate B/D, its shape ν and its inflection point
    R = (D/B)(MB + log(Q/ν)). They are what is fitted; Q, B, D and M are given with D = 1 and M = R. All of
    them are nan if there is no fit.

    Attributes:
        R: the inflection point, where A falls fastest.
        uncertainty: standard deviation of R over other images: over fits to images resampled from these, by
            a bootstrap. Of differences between networks it says whether other images would show them too, and
            not whether other seeds of the training would.
        fit_uncertainty: standard deviation of R by the fit's covariance. It takes the points of the curve for
            independent, which they are not, and is smaller by far.
        Q: equal to ν, as M is R.
        B: the rate.
        D: 1.
        M: equal to R, as D is 1.
        nu: ν, from 1e-4 to 1e4. The ends stand for the limits 0, the Gompertz function, and infinity.
        R2: R², the share of the curve's variance that f explains.
        mse: mean squared difference of A and f.
        images: number of images behind the curve.
        reason: why it was not fitted, in words; empty if it was.
    """

    R: float
    uncertainty: float
    fit_uncertainty: float
    Q: float
    B: float
    D: float
    M: float
    nu: float
    R2: float
    mse: float
    images: int
    reason: str = ""

    @property
    def fitted(self) -> bool:
        """Whether there is an R at all."""
        return not self.reason

    @property
    def enough_images(self) -> bool:
        """Whether there are more than 500 images, as the rules ask."""
        return self.images > _MINIMUM_IMAGES

    @property
    def good_fit(self) -> bool:
        """Whether R² is at least 0.95, as the rules ask."""
        return self.R2 >= _MINIMUM_R2

    @property
    def counts(self) -> bool:
        """Whether R counts by both rules."""
        return self.fitted and self.enough_images and self.good_fit

    def __call__(self, strengths: Tensor) -> Tensor:
        """f(ε), float64, in the shape of ``strengths``; nan if not fitted."""
        if not self.fitted:
            return torch.full(strengths.shape, math.nan, dtype=torch.float64)
        values = decline(strengths.double().cpu().numpy(), self.R, self.B, math.log(self.nu))
        return torch.from_numpy(np.asarray(values))


def fit_logistic(
    radii: Tensor, reach: float | Sequence[float] | None = None, resamples: int = _RESAMPLES, seed: int = 0
) -> LogisticFit:
    """Fit the generalised logistic function to the accuracies that adversarial radii amount to.

    The points of the curve are A(0), A at every finite radius, and A up to ``reach``. Images that withstood
    the attack stay in the share. With a reach the curve goes on at their share after the last image fell, so
    one that does not come down to 0 fits badly, and R² tells; without, it ends there, and R² may not tell.

    Args:
        radii: ρ of the images that count, correctly classified and confidently, shape (N,); infinite where
            the attack failed.
        reach: the largest strength that the attack tried, from where an even grid of points goes down to 0;
            or, of an attack that tries a few strengths only, all of these. At least 0.
        resamples: how often the images are drawn anew for the uncertainty of R, at least 2; or 0, for none.
        seed: of these draws, at least 0.

    Returns:
        The fit. It is not fitted, and says why, if there are fewer than four different radii above 0, if the
        search fails, if the covariance does not determine R, or if R lies outside the radii.

    Raises:
        SettingError: if there are no radii, or one or the reach is negative or nan; if ``resamples`` is 1 or
            negative, or the seed is negative.

    Example:
        >>> radii = 0.1 + 0.02 * torch.logit(torch.arange(0.5, 1000) / 1000)
        >>> fit = fit_logistic(radii.clamp(min=0))
        >>> round(fit.R, 3), fit.counts
        (0.1, True)
    """
    require(resamples == 0 or resamples >= 2, "resamples", resamples, "must be 0 or at least 2")
    require(seed >= 0, "seed", seed, "must be at least 0")
    finite = radii[radii.isfinite()].double().cpu()
    strengths = torch.cat([torch.zeros(1, dtype=torch.float64), finite, _tried(reach)]).unique()
    accuracies = relative_accuracy(radii.cpu(), strengths)
    found = finite[finite > 0].unique()
    if len(found) < 4:
        return _not_fitted(len(radii), _too_few(len(found)))
    x, y = strengths.numpy(), accuracies.numpy()
    scale = float(np.median(found.numpy()))
    solution = _least_squares(x / scale, y)
    if solution is None:
        return _not_fitted(len(radii), "the least-squares search found no solution")
    (R, rate, log_nu), covariance = solution
    fit_uncertainty = math.sqrt(covariance[0, 0]) * scale
    if not math.isfinite(fit_uncertainty):
        return _not_fitted(len(radii), "the curve does not determine the inflection point")
    if not 0 < R * scale < float(found[-1]):
        return _not_fitted(len(radii), f"the inflection point {R * scale:.3g} lies outside the radii")
    squares = np.square(y - decline(x / scale, R, rate, log_nu))
    uncertainty = math.nan
    if resamples:
        scaled = radii.double().cpu().numpy() / scale
        again = resampled_inflections(x / scale, scaled, (R, rate, log_nu), resamples, seed)
        uncertainty = float(again.std(ddof=1)) * scale
    return LogisticFit(
        R=R * scale,
        uncertainty=uncertainty,
        fit_uncertainty=fit_uncertainty,
        Q=math.exp(log_nu),
        B=rate / scale,
        D=1.0,
        M=R * scale,
        nu=math.exp(log_nu),
        R2=float(1 - squares.sum() / np.square(y - y.mean()).sum()),
        mse=float(squares.mean()),
        images=len(radii),
    )


def difference_interval(
    first: float, first_uncertainty: float, second: float, second_uncertainty: float
) -> tuple[float, float]:
    """Where the difference of two R's lies with a probability of 95 %, as far as it is a matter of images.

    The uncertainties are taken for independent. Of two networks that were attacked at the same images they
    are not: what is hard for one is mostly hard for the other, and the interval is rather too wide.

    Args:
        first: R of one network.
        first_uncertainty: its standard deviation over images, ``LogisticFit.uncertainty``.
        second: R of the other.
        second_uncertainty: its standard deviation.

    Returns:
        The ends of the interval of ``first − second``; the first is the more robust if both are above 0.

    Example:
        >>> [round(end, 4) for end in difference_interval(0.011, 0.0003, 0.007, 0.0004)]
        [0.003, 0.005]
    """
    half = _NORMAL_95 * math.hypot(first_uncertainty, second_uncertainty)
    return first - second - half, first - second + half


def _tried(reach: float | Sequence[float] | None) -> Tensor:
    """The strengths that a reach stands for, float64."""
    if reach is None:
        return torch.empty(0, dtype=torch.float64)
    if isinstance(reach, Sequence):
        tried = torch.tensor(reach, dtype=torch.float64)
    else:
        tried = torch.linspace(0, reach, _GRID, dtype=torch.float64)
    require(bool(((tried >= 0) & tried.isfinite()).all()), "reach", reach, "must be finite, at least 0")
    return tried


def _least_squares(x: Floats, y: Floats) -> tuple[tuple[float, float, float], Floats] | None:
    """The best (R, rate, log ν) from several shapes to start with, and its covariance; none if all fail."""
    middle = float(np.interp(-0.5, -y, x))
    spread = float(np.interp(-0.25, -y, x) - np.interp(-0.75, -y, x))
    # The quartiles of the logistic function are 2 log 3 / rate apart
    rate = 2 * math.log(3) / max(spread, 1e-3 * float(x[-1]))
    bounds = ([-np.inf, 0, -LOG_NU], [np.inf, np.inf, LOG_NU])
    best, least = None, math.inf
    for log_nu in _STARTS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OptimizeWarning)  # an infinite covariance says the same
                found, covariance = curve_fit(decline, x, y, p0=(middle, rate, log_nu), bounds=bounds)
        except RuntimeError:
            continue
        error = float(np.square(y - decline(x, *found)).sum())
        if error < least:
            best, least = ((float(found[0]), float(found[1]), float(found[2])), covariance), error
    return best


def _too_few(radii: int) -> str:
    """Why so few different radii above 0 give no fit, in words."""
    if radii == 0:
        return "no image that counts changed its class under the attack"
    strengths = "one strength" if radii == 1 else f"{radii} different strengths"
    return f"images that count changed their class at only {strengths}, and a fit needs 4"


def _not_fitted(images: int, reason: str) -> LogisticFit:
    nan = math.nan
    return LogisticFit(nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, images, reason)
