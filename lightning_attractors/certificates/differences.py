r"""What evaluations of a map alone say of its derivatives: a check on autograd, which can be misled.

Derivatives are asked for along random signs d ∈ {±1}^N. If row i of the error E of a Jacobian has an entry
above a tolerance t, then |(E d)_i| ≤ t for at most half of all d: not for two that differ in the sign of that
entry. So 40 independent directions miss it with probability 2⁻⁴⁰, be it one entry of 784². The quotients are
central differences at two widths, extrapolated; their error is how much the two differ, or a kink in the
middle, which they do not see: what of F(x + h d) + F(x − h d) − 2 F(x) goes with h and not with h². As above,
E |E d|² = ‖E‖_F², so that what is left between quotients and Jacobian bounds how wrong that may be.

The second derivative F″ is a tensor, and E |F″[d, e]|² = ‖F″‖_F² over independent signs d and e. Since
‖F″[u]‖₂ ≤ ‖F″‖_F for unit vectors u, the root mean square over samples estimates from above how fast the
Jacobian changes. It is an estimate: of a map that can only be evaluated nothing more is to be had.

Last, the rounding of F: D(2δ) − 4 D(δ), with second differences D at a δ near the last place of float32, is
of the order δ⁴ for a smooth map in float64, and 10⁻⁸ for one that computes in float32 somewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.errors import require

Map = Callable[[Tensor], Tensor]

_DIRECTIONS, _PAIRS, _ROUNDING_DIRECTIONS, _BASES = 40, 16, 8, 2
WIDTH, FINER_WIDTH = 2.0**-16, 2.0**-22  # the second for maps that bend within the first
_CURVATURE_WIDTH = 1e-6
# No power of two: over multiples of the last place of float32 rounding would repeat itself.
_ROUNDING_WIDTH = 4.3e-8
# Relative to the terms that F adds up. Float64 leaves 1e-14 here, float32 at least 1e-9.
_ROUNDING_ALLOWED = 1e-10
_RESOLUTION, _UNRESOLVED = 1e-8, 1e-4
# How far the root mean square of a few samples may lie below the mean it estimates.
_SAFETY = 4.0


@dataclass(frozen=True)
class Differences:
    """What was seen of a map F near a point.

    Attributes:
        value: F there, shape (N,).
        directions: shape (D, N); signs, in units of 1 + |x|.
        quotients: derivatives along them, shape (D, N).
        spread: error of the quotients, shape (D, N).
        rounding: rounding of F and what it is relative to, shape (2, N).
        curvature: estimate from above of ‖F″‖_F, which bounds how fast the Jacobian changes.
    """

    value: Tensor
    directions: Tensor
    quotients: Tensor
    spread: Tensor
    rounding: Tensor
    curvature: float

    def is_exact(self, jacobian: Tensor) -> bool:
        """Whether F computes in float64 throughout, as far as rounding shows."""
        noise, size = self.rounding
        return not bool((noise > _ROUNDING_ALLOWED * (size + self._terms(jacobian))).any())

    def contradict(self, jacobian: Tensor) -> bool:
        """Whether an entry of a Jacobian (N, N) of F is wrong."""
        error = (self.directions @ jacobian.T - self.quotients).abs()
        return bool((error > self.spread + _RESOLUTION * self._terms(jacobian)).any())

    def discrepancy(self, jacobian: Tensor) -> float:
        """Estimate from above of the Frobenius norm of how wrong a Jacobian (N, N) of F is."""
        error = self.directions @ jacobian.T - self.quotients
        return _SAFETY * float(error.square().sum(dim=1).mean().sqrt())

    def resolve(self, jacobian: Tensor) -> bool:
        """Whether the quotients are exact enough to have contradicted a wrong Jacobian."""
        return bool((self.spread <= _UNRESOLVED * self._terms(jacobian)).all())

    def rounding_of(self, jacobian: Tensor) -> Tensor:
        """What float64 may lose in F, shape (N,)."""
        return torch.finfo(torch.float64).eps * self._terms(jacobian)

    def _terms(self, jacobian: Tensor) -> Tensor:
        """How large the terms are that a component of F adds up, shape (N,)."""
        states = self.directions[0].abs()
        return jacobian.abs() @ states + self.value.abs() + self.quotients.abs().amax(dim=0)


def look(function: Map, x: Tensor, setting: str, width: float = WIDTH) -> Differences:
    """Evaluate a map that takes batches (B, N) about x (N,), in one batch.

    ``width`` is that of the difference quotients, in units of 1 + |x|.

    Raises:
        SettingError: under the name ``setting``, if what comes out is not float64 of the same shape.
    """
    generator = torch.Generator().manual_seed(len(x))

    def signs(*shape: int) -> Tensor:
        return (2.0 * torch.randint(2, (*shape, len(x)), generator=generator) - 1).to(x)

    scale = 1 + x.abs()
    directions = signs(_DIRECTIONS) * scale
    steps = width * torch.tensor([1, -1, 0.5, -0.5]).to(x)
    first = x + steps[:, None, None] * directions

    step = _CURVATURE_WIDTH * float(scale.max())
    one, other = signs(_PAIRS), signs(_PAIRS)
    second = x + step * torch.stack([one + other, one - other, other - one, -one - other])

    bases = (
        x + 0.1 * (1 + torch.rand(_BASES, _ROUNDING_DIRECTIONS, len(x), generator=generator).to(x)) * scale
    )
    stencil = _ROUNDING_WIDTH * torch.tensor([0, 1, -1, 2, -2]).to(x)
    lengths = 0.5 + torch.rand(_ROUNDING_DIRECTIONS, len(x), generator=generator).to(x)
    fine = bases + stencil[:, None, None, None] * (signs(_ROUNDING_DIRECTIONS) * lengths * scale)

    parts = [x[None], first.flatten(0, -2), second.flatten(0, -2), fine.flatten(0, -2)]
    values = evaluate(function, torch.cat(parts), setting).split([len(part) for part in parts])
    quotients, spread = _extrapolated(values[0], values[1].view(first.shape), width)
    corners = values[2].view(second.shape)
    mixed = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * step * step)
    curvature = _SAFETY * float(mixed.square().sum(dim=1).mean().sqrt())
    rounding = _rounding(values[3].view(fine.shape))
    return Differences(values[0][0], directions, quotients, spread, rounding, curvature)


def evaluate(function: Map, states: Tensor, setting: str) -> Tensor:
    """A map of states (B, N), without derivatives.

    Raises:
        SettingError: if what comes out is not float64 of the same shape.
    """
    result = function(states)
    shown = (tuple(result.shape), result.dtype) if isinstance(result, Tensor) else type(result).__name__
    fits = isinstance(result, Tensor) and result.shape == states.shape and result.dtype == states.dtype
    require(fits, setting, shown, f"must give {states.dtype} of shape {tuple(states.shape)}, as its states")
    return result.detach()


def _extrapolated(middle: Tensor, values: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Quotients and their error, from values (N,) in the middle and (4, D, N) at the widths 1, −1, ½, −½."""
    wide, narrow = (values[0] - values[1]) / (2 * width), (values[2] - values[3]) / width
    bends = [values[left] + values[left + 1] - 2 * middle for left in (0, 2)]
    kink = (4 * bends[1] - bends[0]).abs() / (2 * width)
    return (4 * narrow - wide) / 3, torch.maximum((wide - narrow).abs(), kink)


def _rounding(values: Tensor) -> Tensor:
    """Rounding of F and its terms, (2, N), from values (5, bases, D, N) at the widths 0, ±1, ±2."""
    center, right, left, far_right, far_left = values
    bend = far_right + far_left - 2 * center - 4 * (right + left - 2 * center)
    slope = (right - left).abs() / (2 * _ROUNDING_WIDTH)
    # The lesser of two sets of places: a kink, which looks like rounding, is not in both.
    noise = bend.abs().amax(dim=1).amin(dim=0)
    return torch.stack([noise, center.abs().amax(dim=(0, 1)) + slope.amax(dim=(0, 1))])
