r"""Tubes: sets of states that hold every trajectory from a ball, step after step.

A :class:`Tube` holds, for every image of a batch, the set

    { c + Φ u + Q(u, u) + Σ_j P_j t_j :  u in the unit ball,  t_j in E_j }.

u is where in the ball the trajectory began, L2 or L∞; Φ and Q are first and second derivatives of the map so
far, exact but for rounding; every E_j holds a remainder: a vector with |t| ≤ box, node by node, and
‖t / w‖₂ ≤ 1. Sums, multiples and products with a matrix act on c, Φ, Q and P alone and lose nothing, so that
the errors of earlier steps are carried along by exact products of matrices and never by a product of norms.
What a function that acts node by node leaves over becomes a new E_j (``apply``), and the integrators of
:mod:`~lightning_attractors.dynamics` run on tubes as they run on states.

Everything is float64. Its own rounding, 10⁻¹⁶ of what is computed, is covered by ``SLACK``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lightning_attractors.dynamics.planted import Pointwise
from lightning_attractors.norms import NormName

# Share by which bounds are widened for the rounding of the float64 that they are computed in.
SLACK = 1 + 1e-9
# Eigenvalues of this many rows are quick; of more, so many squarings come near enough.
_QUICK_EIGENVALUES, _SQUARINGS = 128, 5
# Added to norms, whose squares may be too small for float64.
_TINY = 1e-150
# Remainders that are kept apart; where there are more, the older half becomes one.
_MOST_BLOCKS = 240


def spectral_bound(matrices: Tensor) -> Tensor:
    """Upper bound of ‖M‖₂ for matrices (..., R, N), shape (...): ‖MᵀM‖_F^(1/2), off by R^(1/4) at most."""
    small = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    return torch.linalg.matrix_norm(small @ small.mT).sqrt() * SLACK


def spectral_norm(matrices: Tensor, squarings: int = _SQUARINGS) -> Tensor:
    """Upper bound of ‖M‖₂ for matrices (..., R, N), shape (...).

    The largest eigenvalue of MᵀM where that is quick, else ‖(MᵀM)^(2ⁿ)‖_F to the root, which is off by
    R^(1/2ⁿ⁺²) at most: for n = 5 squarings of 784 rows by 5 %. Infinite where an entry is.
    """
    small = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    gram = small @ small.mT
    largest = gram.abs().amax(dim=(-2, -1), keepdim=True).clamp(min=_TINY)
    lost = ~largest.isfinite()
    gram = gram.masked_fill(lost, 0.0) / largest.masked_fill(lost, 1.0)
    if gram.shape[-1] <= _QUICK_EIGENVALUES:
        squared = torch.linalg.eigvalsh(gram)[..., -1].clamp(min=0)
    else:
        logarithm = gram.new_zeros(gram.shape[:-2])
        for n in range(squarings):
            size = torch.linalg.matrix_norm(gram, keepdim=True).clamp(min=_TINY)
            logarithm = logarithm + size[..., 0, 0].log() / 2**n
            gram = (gram / size) @ (gram / size)
        squared = (logarithm + torch.linalg.matrix_norm(gram).log() / 2**squarings).exp()
    # squares of less than 1e-154 are lost, or rounded
    found = ((squared * largest[..., 0, 0]).sqrt() + _TINY) * SLACK
    return found.masked_fill(lost[..., 0, 0], torch.inf)


class Remainders:
    """What is known of the remainders t_j of a tube, one after the other.

    Attributes:
        boxes: |t_j| ≤ box, each of shape (B, N).
        weights: w of ‖t_j / w‖₂ ≤ 1, each of shape (B, N).
    """

    def __init__(self) -> None:
        self.boxes: list[Tensor] = []
        self.weights: list[Tensor] = []

    def add(self, box: Tensor, weight: Tensor) -> None:
        self.boxes.append(box)
        self.weights.append(weight)

    def add_sum(self, terms: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Add t = Σ s ∘ v, of which s (B, N), a bound of |v| (B, N) and one of ‖v‖₂ (B,) are given.

        With w = Σ s‖v‖, t/w is a mean of the unit vectors v/‖v‖ with weights that vary from node to node: the
        square of its length is at most the sum of their largest weights.
        """
        box = torch.stack([scale * bound for scale, bound, _ in terms]).sum(dim=0)
        scales = torch.stack([scale * length[..., None] for scale, _, length in terms])
        weight = scales.sum(dim=0)
        shares = (scales / weight.clamp(min=1e-300)).amax(dim=2).sum(dim=0)
        self.add(box * SLACK, weight * shares.sqrt()[:, None] * SLACK)

    def rows(self, blocks: Tensor) -> Tensor:
        """Bounds (B, R) of |Σ_j T_j t_j|, row by row, for T of shape (B, M, R, N)."""
        if blocks.shape[1] == 0:
            return blocks.new_zeros(len(blocks), blocks.shape[2])
        count = blocks.shape[1]
        box = torch.stack(self.boxes[:count], dim=1)[..., None]
        weight = torch.stack(self.weights[:count], dim=1)[..., None]
        by_box = blocks.abs() @ box
        by_norm = (blocks.square() @ weight.square()).sqrt()
        return torch.minimum(by_box, by_norm).sum(dim=1)[..., 0] * SLACK

    def length(self, blocks: Tensor) -> Tensor:
        """Bound (B,) of ‖Σ_j T_j t_j‖₂.

        With G_j = T_j diag(w_j) and any λ_j > 0 its square is at most Σλ_j ‖Σ_j G_jG_jᵀ/λ_j‖₂, which for
        λ_j = ‖G_j‖ is never more than (Σ‖G_j‖)², and less where the G_j reach into different directions.
        """
        if blocks.shape[1] == 0:
            return blocks.new_zeros(len(blocks))
        weight = torch.stack(self.weights[: blocks.shape[1]], dim=1)
        scaled = blocks * weight[:, :, None, :]
        sizes = torch.linalg.matrix_norm(scaled, keepdim=True).clamp(min=_TINY)
        # the square root of each λ goes to either factor
        side_by_side = (scaled / sizes.sqrt()).transpose(1, 2).flatten(2)
        return spectral_norm(side_by_side) * sizes.sum(dim=1)[:, 0, 0].sqrt()


@dataclass(frozen=True)
class Tube:
    """A set of states for each of B images, as the module's docstring says.

    Attributes:
        center: c, shape (B, N).
        linear: Φ, shape (B, N, D).
        quadratic: Q, shape (B, N, D, D), symmetric in the last two; None where second order is a remainder.
        blocks: P, shape (B, M, N, N).
        remainders: what is known of the t_j; shared by all tubes of one flight.
        norm: that of the ball which u is from.
    """

    center: Tensor
    linear: Tensor
    quadratic: Tensor | None
    blocks: Tensor
    remainders: Remainders
    norm: NormName

    def __add__(self, other: Tube) -> Tube:
        quadratic = None
        if self.quadratic is not None and other.quadratic is not None:
            quadratic = self.quadratic + other.quadratic
        return replace(
            self,
            center=self.center + other.center,
            linear=self.linear + other.linear,
            quadratic=quadratic,
            blocks=_sum(self.blocks, other.blocks),
        )

    def __mul__(self, factor: float) -> Tube:
        return replace(
            self,
            center=factor * self.center,
            linear=factor * self.linear,
            quadratic=None if self.quadratic is None else factor * self.quadratic,
            blocks=factor * self.blocks,
        )

    __rmul__ = __mul__

    def mapped(self, matrix: Tensor) -> Tube:
        """The set of M x, for M of shape (R, N) or (B, R, N)."""
        batched = matrix.expand(len(self.center), *matrix.shape[-2:])
        quadratic = self.quadratic
        if quadratic is not None:
            nodes, (rows, size) = quadratic.shape[1], (matrix.shape[-2], quadratic.shape[-1])
            quadratic = (batched @ quadratic.reshape(-1, nodes, size * size)).view(-1, rows, size, size)
        return replace(
            self,
            center=(batched @ self.center[..., None])[..., 0],
            linear=batched @ self.linear,
            quadratic=quadratic,
            blocks=batched[:, None] @ self.blocks,
        )

    def select(self, rows: Tensor) -> Tube:
        """The sets of some of the images, given by a mask of shape (B,)."""
        remainders = Remainders()
        remainders.boxes = [box[rows] for box in self.remainders.boxes]
        remainders.weights = [weight[rows] for weight in self.remainders.weights]
        quadratic = None if self.quadratic is None else self.quadratic[rows]
        kept = (self.center[rows], self.linear[rows], quadratic, self.blocks[rows])
        return Tube(*kept, remainders, self.norm)

    @cached_property
    def spread(self) -> tuple[Tensor, Tensor, Tensor]:
        """How far, node by node, Φu, Q(u, u) and the remainders reach, each of shape (B, N)."""
        if self.norm == "l2":
            first = torch.linalg.vector_norm(self.linear, dim=2)
        else:
            first = self.linear.abs().sum(dim=2)
        second = torch.zeros_like(first)
        if self.quadratic is not None:
            l2 = self.norm == "l2"
            second = spectral_bound(self.quadratic) if l2 else self.quadratic.abs().sum(dim=(2, 3))
        return first * SLACK, second * SLACK, self.remainders.rows(self.blocks)

    def reach(self) -> Tensor:
        """|x − c| ≤ this, node by node, shape (B, N)."""
        first, second, rest = self.spread
        return first + second + rest

    @cached_property
    def lengths(self) -> tuple[Tensor, Tensor, Tensor]:
        """Bounds of ‖Φu‖₂, ‖Q(u, u)‖₂ and of the length of the remainders' sum, each of shape (B,)."""
        u = 1.0 if self.norm == "l2" else math.sqrt(self.linear.shape[2])
        first = u * spectral_norm(self.linear)
        second = torch.zeros_like(first)
        if self.quadratic is not None:
            second = u * u * spectral_norm(self.quadratic.flatten(2))
        return first, second, self.remainders.length(self.blocks)


def ball(center: Tensor, radius: Tensor, norm: NormName = "l2", second_order: bool = True) -> Tube:
    """The balls of radii (B,) around states (B, N), float64."""
    nodes = center.shape[1]
    linear = radius[:, None, None] * torch.eye(nodes, dtype=center.dtype, device=center.device)
    quadratic = center.new_zeros(len(center), nodes, nodes, nodes) if second_order else None
    return Tube(center, linear, quadratic, center.new_empty(len(center), 0, nodes, nodes), Remainders(), norm)


def apply(function: Pointwise, tube: Tube, known: Spread, error: Tensor | None = None) -> Tube:
    """The set of h(x), node by node.

    With δ = x − c = a + b, a = Φu, h(c + δ) = h + h′δ + ½h″a² + ½h″(δ + a)b + ⅙h‴δ³, with h‴ from somewhere
    between. Half of the range of ⅙h‴δ², which has one sign more often than not, goes to the slope; the rest
    and the term in (δ + a) b are the new remainder. Where Q is not kept, ½h″δ² is all of it.

    Args:
        function: h.
        tube: the set of x.
        known: how far the tube extends.
        error: what is added to h(x) at most, node by node, shape (B, N), if anything is.
    """
    terms = (
        [] if error is None else [(error, torch.ones_like(error), error.new_tensor(error.shape[1] ** 0.5))]
    )
    c, reach = tube.center, known.reach
    slope = function.derivative(c, 1)
    quadratic, blocks = tube.quadratic, tube.blocks
    if not function.is_affine:
        if quadratic is None:
            terms.append((bend(function, c, reach), reach, known.length))
        else:
            low, high = (third / 6 * reach * reach for third in function.range(c - reach, c + reach, 3))
            low, high = low.clamp(max=0), high.clamp(min=0)
            slope = slope + (low + high) / 2
            half = function.derivative(c, 2) / 2
            terms.append((half.abs() * (reach + known.first), known.beyond, known.length_beyond))
            terms.append(((high - low) / 2, reach, known.length))
    if quadratic is not None:
        quadratic = bent_forms(function, c, slope, quadratic, tube.linear)
    blocks = slope[:, None, :, None] * blocks
    if terms:
        tube.remainders.add_sum(terms)
        blocks = _with_identity(blocks, len(tube.remainders.boxes))
    return replace(
        tube,
        center=function.derivative(c, 0),
        linear=slope[:, :, None] * tube.linear,
        quadratic=quadratic,
        blocks=blocks,
    )


def bent_forms(h: Pointwise, center: Tensor, slope: Tensor, quadratic: Tensor, linear: Tensor) -> Tensor:
    """Second order of h(x), (B, N, D, D), of that and of first order Φ of x: h′Q + ½h″ Φ ⊗ Φ."""
    bent = slope[:, :, None, None] * quadratic
    if not h.is_affine:
        half = h.derivative(center, 2) / 2
        bent.addcmul_((half[:, :, None] * linear)[:, :, :, None], linear[:, :, None, :])
    return bent


def bend(function: Pointwise, center: Tensor, reach: Tensor) -> Tensor:
    """The s with |h(c + δ) − h(c) − h′(c) δ| ≤ s |δ| wherever |δ| ≤ reach, shape (B, N)."""
    if function.is_affine:
        return torch.zeros_like(center)
    low, high = function.range(center - reach, center + reach, 2)
    return torch.maximum(-low, high).clamp(min=0) / 2 * reach


@dataclass(frozen=True)
class Spread:
    """How far a tube extends: Φu node by node, what is beyond, both together, and the lengths in L2."""

    first: Tensor
    beyond: Tensor
    reach: Tensor
    length_beyond: Tensor
    length: Tensor

    @classmethod
    def of(cls, tube: Tube) -> Spread:
        first, second, rest = tube.spread
        one, two, three = tube.lengths
        beyond = second + rest
        norm = torch.linalg.vector_norm
        length_beyond = torch.minimum(
            torch.minimum(two, norm(second, dim=1)) + torch.minimum(three, norm(rest, dim=1)),
            norm(beyond, dim=1),
        )
        reach = first + beyond
        length = torch.minimum(torch.minimum(one, norm(first, dim=1)) + length_beyond, norm(reach, dim=1))
        return cls(first, beyond, reach, length_beyond * SLACK, length * SLACK)


def reduced(tube: Tube, most: int = _MOST_BLOCKS) -> Tube:
    """The tube with its older remainders boxed together, if there are more than so many."""
    count = tube.blocks.shape[1]
    if count <= most:
        return tube
    old = count - most // 2
    blocks = tube.blocks[:, :old]
    rest = tube.remainders.rows(blocks)
    length = torch.minimum(tube.remainders.length(blocks), torch.linalg.vector_norm(rest, dim=1))
    remainders = Remainders()
    remainders.add(rest, (length * SLACK)[:, None].expand_as(rest))
    remainders.boxes += tube.remainders.boxes[old:count]
    remainders.weights += tube.remainders.weights[old:count]
    identity = torch.eye(rest.shape[1], dtype=rest.dtype, device=rest.device).expand_as(tube.blocks[:, :1])
    return replace(tube, blocks=torch.cat([identity, tube.blocks[:, old:]], dim=1), remainders=remainders)


def _sum(one: Tensor, other: Tensor) -> Tensor:
    if one.shape[1] < other.shape[1]:
        one, other = other, one
    if one.shape[1] == other.shape[1]:
        return one + other
    total = one.clone()
    total[:, : other.shape[1]] += other
    return total


def _with_identity(blocks: Tensor, count: int) -> Tensor:
    """Blocks (B, count, N, N): these, zeros for what this set does not depend on, and the identity."""
    batch, have, nodes, _ = blocks.shape
    grown = blocks.new_zeros(batch, count, nodes, nodes)
    grown[:, :have] = blocks
    grown[:, -1].diagonal(dim1=-2, dim2=-1).fill_(1.0)
    return grown
