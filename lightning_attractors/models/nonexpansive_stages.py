"""Stages of gradient-flow blocks that move no two images apart: NonexpansiveNet's body, or a backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from lightning_attractors.dynamics.integrate import IntegratorName
from lightning_attractors.dynamics.nonexpansive import (
    ControlledLinear,
    ConvolutionOperator,
    DenseOperator,
    GradientFlow,
    Monotone,
    Operator,
    ScaledAvgPool,
)
from lightning_attractors.errors import require
from lightning_attractors.linalg import Padding
from lightning_attractors.memory import require_memory


class NonexpansiveStages(nn.Sequential):
    """Stages, pooling and dense blocks of :class:`~lightning_attractors.models.NonexpansiveNet`, and a map.

    ‖f(x) − f(y)‖₂ ≤ ‖x − y‖₂ for any two images, whatever the weights are, and
    :func:`~lightning_attractors.certificates.lipschitz_bounds` proves it. In a model of this package the
    operators are retracted after every optimiser step, as those of NonexpansiveNet, which has the same
    settings.

    Args:
        image_shape: shape (C, H, W) of the images.
        widths: channels of every stage, each at least 1.
        depths: blocks of every stage, as many, each at least 0.
        strides: by what every stage divides the sides of its images, as many, each at least 1.
        kernel_size: side of the blocks' filters, odd and no larger than the images of any stage.
        padding: of the blocks' convolutions, ``zeros`` or ``circular``.
        pool: side of the windows of the pooling behind the last stage; 1 for none.
        dense_depth: number of dense blocks behind the pooling, at least 0.
        dense_width: rows of their A, at least 1.
        span: t, the time that the flow of a block takes, above 0.
        activation: σ: a name in :data:`~lightning_attractors.dynamics.nonexpansive.MONOTONE` or a module.
        lipschitz: the largest slope of σ; needed for a module.
        method: ``euler``, ``heun`` or ``rk4``.
        max_substeps: how many sub-steps a block may take, at least 1; None for as many as its norm needs.
        outputs: number of features, to which a linear map of norm at most 1 leads, at least 1; without it
            they are those of the last block.
        constrained: if not, weights are free, with one step of length t in every block: nothing is promised.

    Attributes:
        num_features: the number of features.

    Raises:
        SettingError: if a setting lies outside its range.

    Example:
        >>> stages = NonexpansiveStages((1, 8, 8), widths=[8], depths=[1], strides=[2], outputs=20)
        >>> x, y = torch.rand(2, 1, 1, 8, 8)
        >>> stages(x).shape, bool((stages(x) - stages(y)).norm() <= (x - y).norm())
        (torch.Size([1, 20]), True)
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        widths: list[int] | tuple[int, ...] = (4, 16),
        depths: list[int] | tuple[int, ...] = (1, 1),
        strides: list[int] | tuple[int, ...] = (2, 2),
        kernel_size: int = 3,
        padding: Padding = "zeros",
        pool: int = 1,
        dense_depth: int = 0,
        dense_width: int = 256,
        span: float = 2.0,
        activation: str | nn.Module = "ReLU",
        lipschitz: float | None = None,
        method: IntegratorName = "euler",
        max_substeps: int | None = 1,
        outputs: int | None = None,
        constrained: bool = True,
    ) -> None:
        super().__init__()
        three = len(image_shape) == 3 and min(image_shape) >= 1
        require(three, "image_shape", image_shape, "must be (C, H, W), each at least 1")
        _check_shape(widths, depths, strides, dense_depth, dense_width)
        valid = "must be null or at least 1"
        require(max_substeps is None or max_substeps >= 1, "max_substeps", max_substeps, valid)
        require(outputs is None or outputs >= 1, "outputs", outputs, valid)
        self.max_substeps, self.constrained = max_substeps, constrained
        sigma = Monotone(activation, lipschitz)

        def block(operator: Operator) -> GradientFlow:
            return self._block(operator, span, sigma, method)

        channels, *sides = image_shape
        for number, (width, depth, stride) in enumerate(zip(widths, depths, strides, strict=True)):
            require(not any(side % stride for side in sides), "strides", list(strides), _divides(sides))
            sides = [side // stride for side in sides]
            size = (sides[0], sides[1])
            numbers = width * (channels * stride**2 + depth * width * kernel_size**2)
            require_memory("widths", list(widths), numbers)
            self.add_module(f"fold{number}", nn.PixelUnshuffle(stride))
            lift = ConvolutionOperator(channels * stride**2, width, 1, size, padding)
            self.add_module(f"lift{number}", ControlledLinear(lift, constrained))
            for index in range(depth):
                operator = ConvolutionOperator(width, width, kernel_size, size, padding)
                self.add_module(f"stage{number}_block{index}", block(operator))
            channels = width
        require(pool >= 1 and not any(side % pool for side in sides), "pool", pool, _divides(sides))
        self.add_module("pool", ScaledAvgPool(pool))
        self.add_module("flatten", nn.Flatten())
        features = channels * math.prod(side // pool for side in sides)
        require_memory("dense_width", dense_width, dense_depth * dense_width * features)
        for index in range(dense_depth):
            self.add_module(f"dense_block{index}", block(DenseOperator(features, dense_width)))
        if outputs is not None:
            require_memory("outputs", outputs, outputs * features)
            self.add_module("output", ControlledLinear(DenseOperator(features, outputs), constrained))
        self.num_features = features if outputs is None else outputs

    def _block(
        self, operator: Operator, span: float, activation: Monotone, method: IntegratorName
    ) -> GradientFlow:
        block = GradientFlow(operator, span, activation, method, None if self.constrained else 1)
        if self.constrained:
            # An orthogonal A, whose norm is 1 but for rounding, would take two half steps where one is due.
            # After the first A x is 0 but for rounding: the slope of ReLU there would be anyone's choice.
            most = 1.0 if self.max_substeps is None else min(1.0, block.radius(self.max_substeps))
            if operator.norm_bound() > most:
                operator.retract_(most)
        return block

    @torch.no_grad()
    def constrain_(self) -> None:
        """Bring every operator nearer to an isometry, and its norm to the largest that it may have."""
        if not self.constrained:
            return
        for layer in self:
            if isinstance(layer, ControlledLinear):
                layer.operator.retract_(1.0)
            elif isinstance(layer, GradientFlow) and self.max_substeps is not None:
                layer.operator.retract_(layer.radius(self.max_substeps))


def _divides(sides: Sequence[int]) -> str:
    return f"must divide the sides of the images, which come to {sides[0]} × {sides[1]}"


def _check_shape(
    widths: Sequence[int], depths: Sequence[int], strides: Sequence[int], dense_depth: int, dense_width: int
) -> None:
    """Check the numbers of stages and layers.

    Raises:
        SettingError: if a setting lies outside its range.
    """
    require(len(widths) >= 1 and min(widths) >= 1, "widths", widths, "must be numbers of at least 1, and one")
    for name, values, least in (("depths", depths, 0), ("strides", strides, 1)):
        fits = len(values) == len(widths) and min(values) >= least
        require(fits, name, values, f"must be {len(widths)} numbers, as widths, each at least {least}")
    require(dense_depth >= 0, "dense_depth", dense_depth, "must be at least 0")
    require(dense_width >= 1, "dense_width", dense_width, "must be at least 1")
