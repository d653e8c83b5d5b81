"""Norms of linear maps and convolutions, from above: what is returned is never below ‖A‖₂.

``matrix_norm`` and ``convolution_norm`` are for certificates, in float64. The quick ones are for
every step of an optimiser, in the weight's own precision, and as rigorous: their rounding is bounded too.

A convolution with zero padding p acts on an n×n image as a circulant does on a torus of m ≥ n + p points
per axis: no offset of the kernel leads around the torus from the image to the image. The same holds for
twisted circulants, which multiply by a phase e^{iφ} what leads around, so that the frequencies are
(2πj + φ)/m. The norm is at most the largest ‖Â(θ)‖₂ over any one of these grids, which can be far below the
supremum over all θ.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from lightning_attractors.errors import require
from lightning_attractors.linalg.convolution_symbols import Frequencies, Grid, half_symbols, symbols
from lightning_attractors.linalg.gram_iteration import gram_bounds, product_error, products_are_exact

Padding = Literal["zeros", "circular"]

# Far above the rounding of float64 in the sums, eigenvalues and singular values here.
_SLACK = 1e-10
# What the Gram products of the quick bounds may add.
_LOOSENESS = 0.08
# The supremum is at most 1/cos²(π/20) = 1.025 times what is found with so many points.
_POINTS_PER_DEGREE = 20
# Entries of symbols held at a time.
_CHUNK = 2**22
# Largest eigenvalue problem of the refinement.
_MODES = 1024
# Entries of the largest matrix that is assembled instead.
_ASSEMBLED = 2**21
# By how much an upper bound may exceed the true norm before it is worth refining.
_OVERSHOOT = 0.03


@torch.no_grad()
def matrix_norm(weight: Tensor) -> float:
    """‖W‖₂ of a matrix from above: its largest singular value in float64, and more than that can be off.

    Args:
        weight: shape (O, I), floating point.

    Returns:
        At most 1 + 1e-9 times the norm; infinite where an entry is not finite.
    """
    scaled, scale = _scaled(weight)
    if not 0 < scale < math.inf:
        return scale
    return _from_above(float(torch.linalg.matrix_norm(scaled, 2)), scale)


@torch.no_grad()
def quick_matrix_norm(weight: Tensor) -> float:
    """‖W‖₂ of a matrix from above, by Gram products in its own precision.

    Args:
        weight: shape (O, I), floating point.

    Returns:
        At most 1.09 times the norm; infinite where an entry is not finite.
    """
    scaled, scale = _scaled(weight)
    if not 0 < scale < math.inf:
        return scale
    wide = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.mT
    with torch.autocast(wide.device.type, enabled=False):
        wide = wide.to(_working_dtype(weight, *wide.shape))
        bound = gram_bounds(wide[None], _LOOSENESS)
    return _from_above(float(bound), scale)


@torch.no_grad()
def convolution_norm(weight: Tensor, image_size: tuple[int, int], padding: Padding) -> float:
    """‖A‖₂ of a convolution from above, stride 1 and padding k // 2, in float64.

    With circular padding the norm is the largest ‖Â(θ)‖₂ over the frequencies of the image. With zero
    padding it is bounded on a twisted grid; where the image is small for the kernel, on three more and by
    ``_localised``, or by the singular values of the matrix of the convolution if that is small.

    Args:
        weight: shape (O, I, k, k), floating point, k odd.
        image_size: height and width, at least k.
        padding: ``zeros`` or ``circular``.

    Returns:
        With circular padding at most 1 + 1e-9 times the norm. With zeros and from 16×16 on at most 1.05 times
        for 3×3 kernels and what is small enough to assemble, and for larger ones in all but contrived cases.
        Infinite where an entry is not finite.

    Raises:
        SettingError: if the kernel is not square and odd, or larger than the image, or the padding is
            unknown.
    """
    _check(weight, image_size, padding)
    if weight.shape[-1] == 1:
        return matrix_norm(weight[:, :, 0, 0])
    scaled, scale = _scaled(_tall(weight))
    if not 0 < scale < math.inf:
        return scale
    height, width = image_size
    if padding == "circular":
        return _from_above(_grid_norm(scaled, (Frequencies(height), Frequencies(width))), scale)
    reach = weight.shape[-1] // 2
    refine = _overshoot(reach, image_size) > _OVERSHOOT
    if refine and scaled.shape[0] * scaled.shape[1] * (height * width) ** 2 <= _ASSEMBLED:
        return _from_above(float(torch.linalg.matrix_norm(_assembled(scaled, image_size), 2)), scale)
    best = Frequencies(height + reach, math.pi), Frequencies(width + reach, math.pi)
    norm = _grid_norm(scaled, best)
    if not refine:
        return _from_above(norm, scale)
    for first, second in ((0.0, 0.0), (0.0, math.pi), (math.pi, 0.0)):
        grid = Frequencies(height + reach, first), Frequencies(width + reach, second)
        found = _grid_norm(scaled, grid, norm)
        if found < norm:
            norm, best = found, grid
    return _from_above(min(norm, _localised(scaled, best, image_size)), scale)


@torch.no_grad()
def quick_convolution_norm(weight: Tensor, image_size: tuple[int, int], padding: Padding) -> float:
    """‖A‖₂ of a convolution from above, stride 1 and padding k // 2, by Gram products in its own precision.

    The grid is that of the smallest torus, or along an axis where it would be finer than needed, one of N
    points: uᴴÂ(θ)v is a trigonometric polynomial of degree p = k // 2 in each θ, so that its largest absolute
    value is at most 1/cos(pπ/N) times that on N > 2p equispaced points (Ehlich & Zeller, 1964), per axis.

    Args:
        weight: shape (O, I, k, k), floating point, k odd.
        image_size: height and width, at least k.
        padding: ``zeros`` or ``circular``.

    Returns:
        From 16×16 on about 1.12 times the norm at most, 1.2 times for contrived kernels above 3×3; infinite
        where an entry is not finite.

    Raises:
        SettingError: as :func:`convolution_norm`.
    """
    _check(weight, image_size, padding)
    if weight.shape[-1] == 1:
        return quick_matrix_norm(weight[:, :, 0, 0])
    scaled, scale = _scaled(weight)
    if not 0 < scale < math.inf:
        return scale
    size = weight.shape[-1]
    twists = [math.pi] if padding == "zeros" else [0.0]
    if padding == "zeros" and _overshoot(size // 2, image_size) > _OVERSHOOT:
        twists.append(0.0)  # a peak on one grid lies between the points of the other
    with torch.autocast(scaled.device.type, enabled=False):
        dtype = _working_dtype(weight, *sorted(scaled.shape[:2]))
        # the entries of a symbol are sums of k² terms, and Σ_ab ‖K_ab‖_F ≤ k ‖K‖_F
        error = product_error(size**2, dtype) * size * float(scaled.norm())
        narrowed = scaled.to(dtype)
        bound = min(_quick_bound(narrowed, image_size, padding, twist, error) for twist in twists)
    return _from_above(bound, scale)


def _quick_bound(
    weight: Tensor, image_size: tuple[int, int], padding: Padding, twist: float, error: float
) -> float:
    """The quick bound on a grid of the given twist, where symbols are off by at most ``error``."""
    reach = weight.shape[-1] // 2
    coarse = _POINTS_PER_DEGREE * reach
    needed = [length + reach if padding == "zeros" else length for length in image_size]
    between = math.prod(1 / math.cos(reach * math.pi / coarse) for points in needed if points > coarse)
    height, width = (Frequencies(min(points, coarse), twist) for points in needed)
    matrices = half_symbols(weight, (height, width))
    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.mT
    bounds = gram_bounds(matrices, _LOOSENESS)
    return (float(bounds.max()) + error) * between


def _grid_norm(weight: Tensor, grid: Grid, enough: float = math.inf) -> float:
    """Max ‖Â(θ)‖₂ over a grid, or any norm above ``enough`` once there is one."""
    first, second = grid[0].half(), grid[1].all()
    rows = max(1, _CHUNK // (len(second) * weight.shape[0] * weight.shape[1]))
    largest = 0.0
    for part in first.split(rows):
        matrices = symbols(weight, part, second)
        bounds = gram_bounds(matrices.mT, 0.02)
        order = bounds.argsort(descending=True)
        for some in order.split(8):
            if float(bounds[some[0]]) <= largest:
                break
            chosen = matrices[some]
            values = torch.linalg.eigvalsh(chosen.mH @ chosen)[:, -1]
            largest = max(largest, math.sqrt(max(0.0, float(values.max()))))
            if largest > enough:
                return largest
    return largest


def _overshoot(reach: int, image_size: tuple[int, int]) -> float:
    """By how much, to second order, the symbol of the all-ones kernel exceeds the norm on an image."""
    return reach * (reach + 1) / 6 * sum((math.pi / (length + reach)) ** 2 for length in image_size)


def _assembled(weight: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The transposed matrix of the convolution with zero padding, shape (I·H·W, O·H·W)."""
    inputs = weight.shape[1]
    basis = torch.eye(inputs * math.prod(image_size), dtype=weight.dtype, device=weight.device)
    return functional.conv2d(basis.view(-1, inputs, *image_size), weight, padding="same").flatten(1)


def _localised(weight: Tensor, grid: Grid, image_size: tuple[int, int]) -> float:
    """Bound of ‖A‖₂ that knows that no plane wave fits into an image.

    Let C be the (twisted) circulant of the grid and P the restriction to the image. Then ‖A‖₂² ≤ ‖P CᴴC P‖₂,
    and with the right singular vectors v_i of the symbols, CᴴC ≤ τ² + Σ (σ_i² − τ²) v_i v_iᴴ over those with
    σ_i > τ. That of P is τ² plus the largest eigenvalue of √(σ_i² − τ²) ⟨v_i, P v_j⟩ √(σ_j² − τ²).
    """
    first, second = grid[0].all().to(weight.device), grid[1].all().to(weight.device)
    matrices = symbols(weight, grid[0].all(), grid[1].all())
    squares, vectors = torch.linalg.eigh(matrices.mH @ matrices)
    channels = squares.shape[1]
    values, order = squares.flatten().sort(descending=True)
    values, order = values[: _MODES + 1], order[: _MODES + 1]
    floor = float(values[_MODES].clamp(min=0)) if len(values) > _MODES else 0.0
    values, order = values[:_MODES], order[:_MODES]
    place, which = order // channels, order % channels
    modes = vectors.mT[place, which]
    overlaps = modes.conj() @ modes.mT
    for axis, length, at in (
        (first, image_size[0], place // len(second)),
        (second, image_size[1], place % len(second)),
    ):
        wave = torch.exp(1j * axis[at][:, None] * torch.arange(length, device=axis.device)) / len(axis) ** 0.5
        overlaps = overlaps * (wave.conj() @ wave.mT)
    weights = (values - floor).clamp(min=0).sqrt()
    largest = torch.linalg.eigvalsh(weights[:, None] * overlaps * weights)[-1]
    return math.sqrt(floor + max(0.0, float(largest)))


def _check(weight: Tensor, image_size: tuple[int, int], padding: str) -> None:
    sizes = tuple(weight.shape[2:])
    square = len(sizes) == 2 and sizes[0] == sizes[1] and sizes[0] % 2 == 1
    require(square, "kernel_size", sizes, "must be square and odd")
    fits = sizes[0] <= min(image_size)
    require(fits, "kernel_size", sizes[0], f"must not be larger than the image, {image_size}")
    require(padding in ("zeros", "circular"), "padding", padding, "must be zeros or circular")


def _tall(weight: Tensor) -> Tensor:
    """The kernel, or that of the adjoint, whichever has no more input than output channels."""
    return weight if weight.shape[0] >= weight.shape[1] else weight.transpose(0, 1).flip(2, 3)


def _scaled(weight: Tensor) -> tuple[Tensor, float]:
    """The weight in float64, divided by a power of two to a largest entry in [0.5, 1), and that power.

    The power is 0 for a weight of zeros, and infinite where an entry is not finite.
    """
    weight = weight.detach()
    if weight.device.type == "mps":  # without float64
        weight = weight.cpu()
    weight = weight.double()
    largest = float(weight.abs().max())
    if not math.isfinite(largest):
        return weight, math.inf
    # 2⁻¹⁰⁰⁰ has a reciprocal, and 2¹⁰²⁴ is no number
    scale = 2.0 ** min(max(math.frexp(largest)[1], -1000), 1023) if largest > 0 else 0.0
    return (weight / scale if scale else weight), scale


def _working_dtype(weight: Tensor, rows: int, columns: int) -> torch.dtype:
    """float32, unless the weight is float64, rounding would be felt, or products may be cut short."""
    coarse = product_error(columns, torch.float32) * rows > 0.02
    exact = products_are_exact() and not coarse and weight.dtype != torch.float64
    return torch.float32 if exact else torch.float64


def _from_above(norm: float, scale: float) -> float:
    # the last step up is for results among the subnormal numbers
    return math.nextafter(norm * (1 + _SLACK) * scale, math.inf)
