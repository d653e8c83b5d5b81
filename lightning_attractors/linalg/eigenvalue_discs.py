r"""A disc that holds all eigenvalues of a large matrix, by norms of its powers.

Products take the place of eigenvalues with their eigenvectors, which take most of a minute for 3072 nodes.

With S = M − cI, ‖S^m‖ ≤ r^m puts every eigenvalue of M within r of c, and r falls towards the farthest of
them as m grows (Gelfand, 1941); m = 1, 2, 4, … costs one product each. A product of computed powers P is off
by at most γ ‖P‖_F², and an error e of a power T by at most 2 ‖T‖ e + 3 e² in its square: that is added to
every norm.

**Matrices nearby.** Where κ = Σ_j r^−j ‖S^j‖ is finite, |x|_* = Σ_j r^−j ‖S^j x‖ is a norm with
‖x‖ ≤ |x|_* ≤ κ ‖x‖ in which S has norm at most r. S + E has at most r + κ ‖E‖ there, which bounds its
eigenvalues, for any r. By the binary digits of j, κ ≤ Π_i (1 + r^−m ‖S^m‖) over m = 2^i below the last,
divided by 1 − r^−m ‖S^m‖ of the last.

**Inert nodes.** A column that is zero but for its diagonal makes S block triangular, [B 0; C D] with D
diagonal: powers are taken of B alone, and κ ≤ κ_B + κ_D + ‖C‖ κ_B κ_D / r. Half of the nodes of a
firing-rate network are where the slope of its gain is 0, so that this takes an eighth of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.linalg.gram_iteration import gram_bounds, product_error

# Eigenvalues of more nodes are only computed where a disc does not decide.
MOST_NODES_BY_EIGENVALUES = 1024
# Room for what the bounds themselves lose in float64, and for underflow.
_SLACK, _TINY = 1 + 1e-9, 1e-290
# Of a logarithm up to 700 and the sums that lead to it.
_LOG_ROUNDING = 1e-11
# Squares of what is larger may overflow, and a power of two that undoes a smaller one.
_LARGEST, _LEAST_EXPONENT = 1e100, -1000
_FIRST_LOOSENESS = 1.0
_MOST_SQUARINGS = 14
_ARNOLDI_STEPS, _PLACES = 30, 8
# From so many on, how fast the radius falls tells where it will end.
_TELLING = 6


@dataclass(frozen=True)
class PowerNorms:
    """What norms of powers say of the eigenvalues of a matrix M (N, N).

    Attributes:
        center: c, centre of the disc.
        log_norms: logarithms of upper bounds of ‖(B − cI)^(2^i)‖₂, i = 0, 1, …; B is M without inert nodes.
        inert: largest distance from c of an inert node's eigenvalue; None if there are none.
        feed: upper bound of ‖C‖₂, by which the others act on inert nodes.
    """

    center: float
    log_norms: tuple[float, ...]
    inert: float | None = None
    feed: float = 0.0

    @property
    def radius(self) -> float:
        """Every eigenvalue of M is within this distance of the centre."""
        root = min(log / 2**i for i, log in enumerate(self.log_norms))
        return max(_exp(root) * _SLACK, self.inert or 0.0)

    def near(self, distance: float) -> tuple[float, float]:
        """R + κ ‖E‖ for all matrices within a distance ‖E‖₂ of M, and its κ; both may be infinite."""
        if not math.isfinite(distance):
            return math.inf, math.inf
        size = max(_exp(self.log_norms[0]), self.radius, distance)
        choices = [self.radius + size * 2.0**-n for n in range(-1, 40)]
        found = [(r + growth * distance, growth) for r in choices for growth in [self._growth(r)]]
        return min((pair for pair in found if pair[1] < math.inf), default=(math.inf, math.inf))

    def _growth(self, r: float) -> float:
        """κ at r; infinite where the sum is not known to end."""
        if not (self.inert or 0.0) < r < math.inf:
            return math.inf
        # Logarithms round, 2^i-fold: what is found is that of a slightly smaller r, hence of this one too.
        log_r = math.log(r) - _LOG_ROUNDING
        shares = [_exp(log - 2**i * log_r) for i, log in enumerate(self.log_norms)]
        if shares[-1] >= 1:
            return math.inf
        active = math.prod(1 + share for share in shares[:-1]) / (1 - shares[-1])
        if self.inert is None:
            return active * _SLACK
        inert = 1 / (1 - self.inert / r)
        return (active + inert + self.feed / r * active * inert) * _SLACK

    def moved(self, shift: float, factor: float) -> PowerNorms:
        """The same for the matrix ``factor`` (M + ``shift`` I), ``factor`` above 0."""
        logs = tuple(log + 2**i * math.log(factor) for i, log in enumerate(self.log_norms))
        inert = None if self.inert is None else self.inert * factor
        return PowerNorms(factor * (self.center + shift), logs, inert, self.feed * factor)


def power_norms(matrix: Tensor, center: float, radius: float, looseness: float = 0.1) -> PowerNorms | None:
    """Norms of as many powers as show that all eigenvalues are in a disc, by a smaller disc within it.

    Args:
        matrix: shape (N, N), real; powers are taken in float64.
        center: centre of the disc, real.
        radius: its radius, above 0.
        looseness: by what share, about, the gap between the two discs may be below that of the eigenvalues:
            once for where the smaller one is and once for its size. If infinite, the first one is enough, and
            less is known of matrices nearby.

    Returns:
        None where that is not shown: an eigenvalue may be outside, or too near the edge for so few powers,
        or an entry is above 1e100 or not finite.
    """
    matrix = matrix.double()  # float32 rounds more than is allowed for here
    if not bool((matrix.abs() < _LARGEST).all()):
        return None
    place = _place(matrix, center, radius, max(1 - looseness, 0.0))
    edge, center = radius - abs(place - center), place
    active = active_nodes(matrix)
    inert, feed = None, 0.0
    if not bool(active.all()):
        inert = float((matrix.diagonal()[~active] - center).abs().max()) * _SLACK
        feed = _norm(matrix[~active][:, active])
        matrix = matrix[active][:, active]
        if inert >= edge:
            return None
    if len(matrix) == 0:
        return PowerNorms(center, (-math.inf,), inert, feed)
    powers = _Powers(matrix - center * torch.eye(len(matrix)).to(matrix), looseness < math.inf)
    last = _exp(powers.log_norms[0])
    for count in range(1, _MOST_SQUARINGS + 1):
        powers.square()
        found = PowerNorms(center, tuple(powers.log_norms), inert, feed)
        gap = edge - found.radius
        if gap > 0 and last - found.radius <= looseness * gap:
            return found
        # log r ends as far below its last value as that is below the one before
        if count >= _TELLING and found.radius**2 > edge * last:
            return None
        last = found.radius
    return found if found.radius < edge else None


def _place(matrix: Tensor, center: float, radius: float, kept: float) -> float:
    """Where powers show soonest that the eigenvalues are in a disc: the centre of a smaller one within it.

    It is between the disc's centre and the mean eigenvalue, and leaves at least the share ``kept`` of the gap
    between eigenvalues and disc. Arnoldi's values stand in for the eigenvalues, as nothing is claimed of it.
    """
    values, mean = _ritz_values(matrix), float(matrix.diagonal().mean())

    def left(place: float) -> float:
        return radius - abs(place - center)

    def farthest(place: float) -> float:
        return float((values - place).abs().max())

    gap = max(left(center) - farthest(center), 0.0)
    places = [center + share / _PLACES * (mean - center) for share in range(1, _PLACES + 1)]
    fit = [place for place in places if left(place) > 0 and left(place) - farthest(place) >= kept * gap]
    return min([center, *fit], key=lambda place: farthest(place) / left(place))


def _ritz_values(matrix: Tensor) -> Tensor:
    """Eigenvalues in the space of the first powers on one vector (Arnoldi, 1951)."""
    steps, size = min(_ARNOLDI_STEPS, len(matrix)), matrix.abs().max()
    if size == 0:
        return matrix.new_zeros(1)
    matrix = matrix / size  # what is normalized below must not be far from 1
    generator = torch.Generator().manual_seed(steps)
    start = torch.randn(len(matrix), generator=generator, dtype=torch.float64).to(matrix)
    basis = torch.nn.functional.normalize(start, dim=0)[:, None]
    for _ in range(steps - 1):
        new = matrix @ basis[:, -1]
        for _ in range(2):  # twice is enough to be orthogonal
            new = new - basis @ (basis.mT @ new)
        basis = torch.cat([basis, torch.nn.functional.normalize(new, dim=0)[:, None]], dim=1)
    return size * torch.linalg.eigvals(basis.mT @ matrix @ basis)


def active_nodes(matrix: Tensor) -> Tensor:
    """Which columns of a matrix (N, N) have an entry beside the diagonal, shape (N,)."""
    return matrix.count_nonzero(dim=0) > (matrix.diagonal() != 0)


class _Powers:
    """S^(2^i) as a scaled matrix with a bound of its error in L2, and bounds of the norms so far."""

    def __init__(self, matrix: Tensor, in_spectral_norm: bool) -> None:
        self.matrix, self.error, self.log_scale = matrix, 0.0, 0.0
        # squares of entries, and of theirs, neither overflow nor vanish
        self._scale(float(matrix.abs().max()))
        size = float(torch.linalg.matrix_norm(self.matrix)) * _SLACK
        # the centre was subtracted in float64
        self.error = torch.finfo(torch.float64).eps * size
        norm = min(size, _norm(self.matrix)) if in_spectral_norm else size
        self.log_norms = [_log(norm + self.error) + self.log_scale]

    def square(self) -> None:
        norm = _exp(self.log_norms[-1] - self.log_scale)
        rounding = product_error(len(self.matrix), torch.float64)
        rounding *= float(torch.linalg.matrix_norm(self.matrix)) ** 2
        self.error = ((2 * norm + 3 * self.error) * self.error + rounding) * _SLACK + _TINY
        self.matrix = self.matrix @ self.matrix
        self.log_scale *= 2
        size = float(torch.linalg.matrix_norm(self.matrix))
        self.log_norms.append(
            min(_log((size + self.error) * _SLACK) + self.log_scale, 2 * self.log_norms[-1])
        )
        self._scale(size)

    def _scale(self, size: float) -> None:
        """Divide by about ``size``, by a power of two, which does not round."""
        if size > 0:
            exponent = max(math.frexp(size)[1], _LEAST_EXPONENT)
            self.matrix, self.error = self.matrix * 2.0**-exponent, self.error * 2.0**-exponent
            self.log_scale += exponent * math.log(2)


def _norm(matrix: Tensor) -> float:
    """Upper bound of ‖M‖₂, of any shape."""
    if matrix.numel() == 0:
        return 0.0
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    return float(gram_bounds(wide[None], _FIRST_LOOSENESS))


def _exp(logarithm: float) -> float:
    return math.exp(logarithm) if logarithm < 700 else math.inf


def _log(number: float) -> float:
    return -math.inf if number == 0 else math.log(number)
