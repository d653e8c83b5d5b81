"""A π-periodic function and its derivatives from a table, in float32, as fast as an activation function."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_attractors.dynamics.nmode.flow_series import Coefficients, differentiate, on_grid

# π in two parts. The first has 19 bits: its products with up to 32 periods are exact in float32.
_PI_HIGH = float.fromhex("0x3.243f8p0")
_PI_LOW = math.pi - _PI_HIGH
# A table spans ±reach, where the period need not be taken away: at least a little more than half a period
# either way, and as much as this allows.
_LEAST_REACH, _LARGEST_REACH, _MOST_NODES = 2.0, 64.0, 2**17
_ORDERS = 6
_PIECE = 262144  # elements at a time on a CPU, so that intermediate results stay in its cache
_COARSEST, _FINEST = 2.0**-8, 2.0**-15
_ERROR, _SLOPE_ERROR = 3e-7, 5e-6  # of Y, and of Y′ in units of max(1, sup|Y′|)
LARGEST_CURVATURE = 8 * _ERROR / _FINEST**2  # sup|Y″| at the finest spacing

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx


class FlowTable:
    """Values and derivatives of a series at nodes a power of two apart.

    The nodes do not divide the period: that way k h is exact, and so is the residual d = γ − pπ − k h to 1e-9
    or so. With it Y′ = Y′_k + d Y″_k and, in one operation more, Y = Y_k + d Y′: the errors d²|Y‴|/2 and
    d²|Y″|/2 set the spacing, which is no finer than 2⁻¹⁵ whatever they ask for: see ``is_exact``.

    Args:
        coefficients: of the series.
        curvatures: sup|Y″| and sup|Y‴|.
        scale: max(1, sup|Y′|), what the error of Y′ is measured in.

    Attributes:
        spacing: of the nodes.
        is_exact: whether it is fine enough for an error of 1e-6 in Y, and of 1e-5 ``scale`` in Y′.
    """

    def __init__(self, coefficients: Coefficients, curvatures: tuple[float, float], scale: float) -> None:
        second, third = curvatures
        density = max(second / (8 * _ERROR), third / (8 * _SLOPE_ERROR * scale), _COARSEST**-2)
        self.is_exact = density <= _FINEST**-2
        self.spacing = max(_FINEST, 2.0 ** math.floor(-math.log2(density) / 2))
        reach = min(_LARGEST_REACH, max(_LEAST_REACH, self.spacing * _MOST_NODES / 2))
        nodes = round(2 * reach / self.spacing) + 1
        columns = [
            on_grid(differentiate(coefficients, order), -reach, self.spacing, nodes)
            for order in range(_ORDERS)
        ]
        with torch.inference_mode(False):
            rows = torch.stack([torch.from_numpy(column) for column in columns]).float()
        self._rows = {torch.device("cpu"): rows}

    def __call__(self, gamma: Tensor, order: int = 0) -> Tensor:
        """The derivative of that order at γ (float32), elementwise; differentiable."""
        wants_slope = torch.is_grad_enabled() and gamma.requires_grad
        return Lookup.apply(gamma, self._on(gamma.device), self.spacing, order, wants_slope)[0]

    def _on(self, device: torch.device) -> Tensor:
        rows = self._rows.get(device)
        if rows is None:
            with torch.inference_mode(False):
                rows = self._rows[device] = self._rows[torch.device("cpu")].to(device)
        return rows


class Lookup(torch.autograd.Function):
    """(the function of row ``order``, its derivative or None), elementwise."""

    @staticmethod
    def forward(
        gamma: Tensor, rows: Tensor, spacing: float, order: int, wants_slope: bool
    ) -> tuple[Tensor, Tensor | None]:
        if order + 3 > len(rows):
            raise RuntimeError("derivatives of the flow map in float32 stop at the fourth; use float64")
        taylor = rows[order : order + 3]
        if torch.compiler.is_compiling():
            return _fused(gamma, taylor, spacing)
        return _in_pieces(gamma, taylor, spacing, wants_slope)

    @staticmethod
    def setup_context(
        ctx: FunctionCtx,
        inputs: tuple[Tensor, Tensor, float, int, bool],
        output: tuple[Tensor, Tensor | None],
    ) -> None:
        gamma, ctx.rows, ctx.spacing, ctx.order, _ = inputs  # type: ignore[attr-defined]
        ctx.save_for_backward(gamma, output[1])  # type: ignore[arg-type]
        ctx.set_materialize_grads(False)  # no zeros for the slope, which has no gradient
        if output[1] is not None:
            ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor, _: None) -> tuple[Tensor, None, None, None, None]:
        gamma, slope = ctx.saved_tensors  # type: ignore[attr-defined]
        again = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if slope is None or again:  # to be differentiated once more
            arguments = ctx.rows, ctx.spacing, ctx.order + 1, again  # type: ignore[attr-defined]
            slope = Lookup.apply(gamma, *arguments)[0]
        return gradient * slope, None, None, None, None

    @staticmethod
    def vmap(
        info: object, in_dims: tuple[int | None, ...], *arguments: object
    ) -> tuple[tuple[Tensor, Tensor | None], tuple[int | None, int | None]]:
        value, slope = Lookup.apply(*arguments)
        return (value, slope), (in_dims[0], None if slope is None else in_dims[0])


def _in_pieces(
    gamma: Tensor, taylor: Tensor, spacing: float, wants_slope: bool
) -> tuple[Tensor, Tensor | None]:
    """Operation by operation, in place, on pieces that the cache holds."""
    flat = gamma.reshape(-1)
    value = torch.empty_like(flat)
    slope = torch.empty_like(flat) if wants_slope else None
    size = _PIECE if flat.device.type == "cpu" else max(1, flat.numel())
    scratch = torch.empty(3, min(size, flat.numel()), dtype=flat.dtype, device=flat.device)
    reduction = _Reduction(taylor, spacing)
    for start in range(0, flat.numel(), size):
        piece = flat[start : start + size]
        count = piece.numel()
        periods, rest, node = scratch[:, :count]
        if reduction.is_needed(piece):
            reduction.by_periods(piece, periods, rest, node)
        else:
            reduction.to_node(piece, rest, node)
        f, first, second = _gather(taylor, node)
        rest = rest.view_as(f)
        steepness = second if slope is None else slope[start : start + count].view_as(f)
        torch.addcmul(first, rest, second, out=steepness)
        torch.addcmul(f, rest, steepness, out=value[start : start + count].view_as(f))
    shape = gamma.shape
    return value.view(shape), None if slope is None else slope.view(shape)


class _Reduction:
    """γ = p π + node + rest, without rounding: ``node``/reach is found in [−1, 1], and ``rest``."""

    def __init__(self, taylor: Tensor, spacing: float) -> None:
        self.spacing = spacing
        self.reach = (taylor.shape[1] - 1) // 2 * spacing
        # Added to node/reach and taken away again, it rounds that to a node.
        self.rounder = 1.5 * 2**23 * spacing / self.reach
        self.rounder_tensor = taylor.new_full((), self.rounder)  # filled there: a copy would be waited for

    def is_needed(self, gamma: Tensor) -> bool:
        """Whether γ goes beyond the table; on an accelerator it is cheaper not to ask."""
        if gamma.device.type != "cpu":
            return True
        least, most = torch.aminmax(gamma)
        return not (least >= -self.reach and most <= self.reach)  # so that nan is beyond, too

    def to_node(self, gamma: Tensor, rest: Tensor, node: Tensor) -> None:
        torch.add(self.rounder_tensor, gamma, alpha=1 / self.reach, out=node).sub_(self.rounder)
        torch.sub(gamma, node, alpha=self.reach, out=rest)

    def by_periods(self, gamma: Tensor, periods: Tensor, rest: Tensor, node: Tensor) -> None:
        torch.mul(gamma, 1 / math.pi, out=periods).round_()
        torch.add(gamma, periods, alpha=-_PI_HIGH, out=rest)
        torch.add(rest, periods, alpha=-_PI_LOW, out=node)
        torch.add(self.rounder_tensor, node, alpha=1 / self.reach, out=node).sub_(self.rounder)
        rest.sub_(node, alpha=self.reach).add_(periods, alpha=-_PI_LOW).clamp_(-self.spacing, self.spacing)


def _gather(taylor: Tensor, node: Tensor) -> tuple[Tensor, ...]:
    """The three rows at the nodes, each (threads, n).

    grid_sample is the one gather in PyTorch that is vectorised on a CPU. It shares the batch dimension
    between threads, and reads no y in an image of height 1, whatever it is; a nan becomes the first node.
    """
    count = node.numel()
    available = 2 ** (torch.get_num_threads().bit_length() - 1)  # a power of two, to divide most counts
    threads = math.gcd(count, available)
    image = taylor[:, None].expand(threads, 3, 1, taylor.shape[1])
    points = node.view(threads, 1, count // threads, 1).expand(-1, -1, -1, 2)
    return torch.grid_sampler_2d(image, points, 1, 1, True).squeeze(2).unbind(1)


def _fused(gamma: Tensor, taylor: Tensor, spacing: float) -> tuple[Tensor, Tensor]:
    """The same without buffers, for a compiler that makes one loop of it."""
    rounder = 1.5 * 2**23 * spacing
    periods = torch.round(gamma * (1 / math.pi))
    rest = gamma - periods * _PI_HIGH
    node = (rest - periods * _PI_LOW + rounder) - rounder
    rest = ((rest - node) - periods * _PI_LOW).clamp(-spacing, spacing)
    half = taylor.shape[1] // 2
    # ONNX gathers by int64 alone
    kind = torch.int64 if torch.compiler.is_exporting() else torch.int32
    index = (node.nan_to_num() * (1 / spacing)).clamp(-half, half).to(kind) + half
    f, first, second = taylor[0][index], taylor[1][index], taylor[2][index]
    slope = first + rest * second
    return f + rest * slope, slope
