"""NonexpansiveNet: residual layers that are steps of a gradient flow, and a Lipschitz constant as a bound."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric, Metric

from lightning_attractors.certificates import (
    NormName,
    l2_logits,
    l2_radii,
    lipschitz_bounds,
    pair_constants,
    pair_radii,
    remember,
    require_faithful,
    summing_products,
)
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
from lightning_attractors.keywords import Unpack
from lightning_attractors.linalg import Padding
from lightning_attractors.models.base import OPTIMIZATION_SETTINGS, OptimizationSettings
from lightning_attractors.models.cross_entropy import CrossEntropyClassifier
from lightning_attractors.models.memory import require_memory

LossName = Literal["cross_entropy", "hinge"]
# What beside ``forward`` a certificate takes for this class's own.
_COMPUTES_BY = frozenset(["layers", "head"])


class NonexpansiveNet(CrossEntropyClassifier):
    """Stages of gradient-flow blocks between layers of norm 1 (Ehrhardt, Murari and Sherry, 2025).

    Each stage folds windows of ``stride`` × ``stride`` pixels into channels, lifts or projects these by a
    1 × 1 convolution of norm at most 1, and lets convolutional blocks x ↦ x − h Aᵀσ(Ax + b) follow. Behind
    the last one come pooling, dense blocks and a linear head, all of norm at most 1. So the un-tempered
    logits move by at most as much as the image does, in L2, and an image whose largest logit leads by M
    keeps its class within M/√2 of it, or more: see :meth:`certified_radii`.

    After every optimiser step each operator is retracted: one Newton-Schulz step towards an isometry, and
    its norm brought to where ``max_substeps`` sub-steps are enough.

    Args:
        num_classes: number of classes K.
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
        activation: σ: a name in :data:`~lightning_attractors.dynamics.MONOTONE` or a module.
        lipschitz: the largest slope of σ; needed for a module.
        method: ``euler``, ``heun`` or ``rk4``.
        max_substeps: how many sub-steps a block may take: its norm is kept where they are enough; at least
            1. With None the norm is free, and so is their number.
        loss: ``cross_entropy`` of the logits, or ``hinge``: max(0, margin − lead of the label).
        temperature: what logits are divided by, from 1e-6 to 1e6, where float32 tells them apart; small ones
            train for accuracy.
        margin: what is asked of the label's lead, before the temperature: a lead of √2 ε certifies the
            radius ε. Cross-entropy sees the label's logit lowered by it. At least 0, above 0 for ``hinge``.
        radius: the L2 radius of ``val/certified_accuracy`` and ``test/certified_accuracy``, above 0.
        constrained: if not, this is a network of the same shape whose weights are free, with one step of
            length t in every block.
        **optimization: the settings of :class:`~lightning_attractors.models.base.Classifier`.

    Attributes:
        layers: everything before the head.
        head: the head.

    Raises:
        SettingError: if a setting lies outside its range.

    Example:
        >>> model = NonexpansiveNet(3, (1, 8, 8), widths=[8], depths=[1], strides=[2], dense_depth=1)
        >>> model(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 3])
        >>> round(model.gain_bounds()["lipschitz"], 3)  # of the logits
        10.0
    """

    half_precisions = ()  # certificates are of float32
    certified_norm: NormName = "l2"
    certified_box = (-math.inf, math.inf)

    def __init__(
        self,
        num_classes: int = 10,
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
        loss: LossName = "cross_entropy",
        temperature: float = 0.1,
        margin: float = 0.0,
        radius: float = 36 / 255,
        constrained: bool = True,
        **optimization: Unpack[OptimizationSettings],
    ) -> None:
        super().__init__(num_classes, **optimization)
        three = len(image_shape) == 3 and min(image_shape) >= 1
        require(three, "image_shape", image_shape, "must be (C, H, W), each at least 1")
        _check_shape(widths, depths, strides, dense_depth, dense_width)
        _check_training(max_substeps, loss, temperature, margin, radius)
        self._save_settings()
        self.span, self.method, self.max_substeps = span, method, max_substeps
        self.activation, self.constrained = Monotone(activation, lipschitz), constrained
        self.loss_name, self.temperature, self.margin, self.radius = loss, temperature, margin, radius
        layers, (channels, *sides) = self._stages(image_shape, widths, depths, strides, kernel_size, padding)
        require(pool >= 1 and not any(side % pool for side in sides), "pool", pool, _divides(sides))
        layers["pool"], layers["flatten"] = ScaledAvgPool(pool), nn.Flatten()
        features = channels * math.prod(side // pool for side in sides)
        require_memory("dense_width", dense_width, dense_depth * dense_width * features)
        for block in range(dense_depth):
            layers[f"dense_block{block}"] = self._block(DenseOperator(features, dense_width))
        self.layers = nn.Sequential(layers)
        self.head = self._linear(DenseOperator(features, num_classes))
        self.val_metrics["certified_accuracy"] = MeanMetric()
        self.test_metrics["certified_accuracy"] = MeanMetric()
        if constrained:
            self.monitor = "val/certified_accuracy"

    def _save_settings(self) -> None:
        """Keep the settings for checkpoints: of a module, only what the command line can rebuild it from."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module`")
            self.save_hyperparameters(ignore=OPTIMIZATION_SETTINGS)
        if isinstance(self.hparams["activation"], nn.Module):
            del self.hparams["activation"]

    def _stages(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int],
        depths: Sequence[int],
        strides: Sequence[int],
        kernel_size: int,
        padding: Padding,
    ) -> tuple[OrderedDict[str, nn.Module], tuple[int, ...]]:
        """The layers of all stages by name, and the shape of what the last one gives of an image."""
        channels, *sides = image_shape
        layers = OrderedDict[str, nn.Module]()
        for number, (width, depth, stride) in enumerate(zip(widths, depths, strides, strict=True)):
            require(not any(side % stride for side in sides), "strides", list(strides), _divides(sides))
            sides = [side // stride for side in sides]
            size = (sides[0], sides[1])
            numbers = width * (channels * stride**2 + depth * width * kernel_size**2)
            require_memory("widths", list(widths), numbers)
            layers[f"fold{number}"] = nn.PixelUnshuffle(stride)
            lift = ConvolutionOperator(channels * stride**2, width, 1, size, padding)
            layers[f"lift{number}"] = self._linear(lift)
            for block in range(depth):
                operator = ConvolutionOperator(width, width, kernel_size, size, padding)
                layers[f"stage{number}_block{block}"] = self._block(operator)
            channels = width
        return layers, (channels, *sides)

    def _linear(self, operator: Operator) -> ControlledLinear:
        return ControlledLinear(operator, controlled=self.constrained)

    def _block(self, operator: Operator) -> GradientFlow:
        substeps = None if self.constrained else 1
        block = GradientFlow(operator, self.span, self.activation, self.method, substeps)
        if self.constrained:
            # An orthogonal A, whose norm is 1 but for rounding, would take two half steps where one is due.
            # After the first A x is 0 but for rounding: the slope of ReLU there would be anyone's choice.
            most = 1.0 if self.max_substeps is None else min(1.0, block.radius(self.max_substeps))
            if operator.norm_bound() > most:
                operator.retract_(most)
        return block

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0, 1], differentiable in the images."""
        logits: Tensor = self.head(self.layers(images)) / self.temperature
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = self.training_batch(batch, batch_idx)
        loss = self.margin_loss(self(images), labels)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def margin_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss that is trained, of logits (B, K) and labels (B,)."""
        columns = labels[:, None]
        if self.loss_name == "hinge":
            label = logits.gather(1, columns)[:, 0]
            others = logits.scatter(1, columns, -math.inf).amax(dim=1)
            return functional.relu(self.margin - self.temperature * (label - others)).mean()
        lowered = torch.full_like(columns, -self.margin / self.temperature, dtype=logits.dtype)
        return functional.cross_entropy(logits.scatter_add(1, columns, lowered), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = self.evaluation_batch(batch)
        untempered = self.measure(self.val_metrics, images, labels).double() * self.temperature
        constants = pair_constants(self.head, math.prod(lipschitz_bounds(self.layers).values()))
        radii = pair_radii(untempered, labels, constants)
        cast(Metric, self.val_metrics["certified_accuracy"]).update((radii >= self.radius).float())

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = self.evaluation_batch(batch)
        self.measure(self.test_metrics, images, labels)
        with summing_products(images.device):
            certified = self.certified_radii(images, labels) >= self.radius
        cast(Metric, self.test_metrics["certified_accuracy"]).update(certified.float())

    def certified_radii(self, images: Tensor, labels: Tensor) -> Tensor:
        """L2 radii within which images (B, C, H, W) are proved to keep their labels (B,).

        Of every other class's logit, divided by how fast it can catch up: see
        :func:`~lightning_attractors.certificates.l2_radii`.

        Returns:
            Shape (B,), float64; 0 where the label does not win.

        Raises:
            SettingError: if ``certified_norm`` says otherwise, or ``forward`` may compute something else than
                the layers: see :func:`~lightning_attractors.certificates.require_faithful`.
        """
        layers, head, temperature = self.layers, self.head, self.temperature
        _check_temperature(temperature)
        norm = self.certified_norm
        require(norm == "l2", "certified_norm", norm, "must be l2, as the radii are")
        require_faithful(
            self,
            NonexpansiveNet,
            _COMPUTES_BY,
            (layers, head),
            lambda x: head(layers(x)) / temperature,
            l2_logits(layers, head, temperature),
            images,
        )
        return l2_radii(layers, head, images, labels)

    def gain_bounds(self) -> dict[str, float]:
        """L2 Lipschitz constants from above: of the layers, and ``lipschitz``, of the logits."""
        layers = {**lipschitz_bounds(self.layers), "head": self.head.gain_bound()}
        return {"lipschitz": math.prod(layers.values()) / self.temperature, **layers}

    @torch.no_grad()
    def constrain_(self) -> None:
        """Bring every operator nearer to an isometry, and its norm to the largest that it may have."""
        if not self.constrained:
            return
        for layer in [*self.layers, self.head]:
            if isinstance(layer, ControlledLinear):
                layer.operator.retract_(1.0)
            elif isinstance(layer, GradientFlow) and self.max_substeps is not None:
                layer.operator.retract_(layer.radius(self.max_substeps))


remember(NonexpansiveNet, _COMPUTES_BY)


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


def _check_temperature(temperature: float) -> None:
    """See that float32 can hold logits divided by it, and tell them apart.

    Raises:
        SettingError: if it lies outside its range.
    """
    fits = isinstance(temperature, int | float) and 1e-6 <= temperature <= 1e6
    require(fits, "temperature", temperature, "must be from 1e-6 to 1e6")


def _check_training(
    max_substeps: int | None, loss: str, temperature: float, margin: float, radius: float
) -> None:
    """Check what concerns training.

    Raises:
        SettingError: if a setting lies outside its range.
    """
    valid = "must be null or at least 1"
    require(max_substeps is None or max_substeps >= 1, "max_substeps", max_substeps, valid)
    require(loss in ("cross_entropy", "hinge"), "loss", loss, "must be cross_entropy or hinge")
    _check_temperature(temperature)
    enough = 0 <= margin < math.inf and (margin > 0 or loss != "hinge")
    require(enough, "margin", margin, "must be finite and at least 0, above 0 for hinge")
    require(0 < radius < math.inf, "radius", radius, "must be finite and above 0")
