"""NonexpansiveNet: residual layers that are steps of a gradient flow, and a Lipschitz constant as a bound."""

from __future__ import annotations

import math
import warnings
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
from lightning_attractors.dynamics.nonexpansive import ControlledLinear, DenseOperator
from lightning_attractors.errors import require
from lightning_attractors.keywords import Unpack
from lightning_attractors.linalg import Padding
from lightning_attractors.models.base import OPTIMIZATION_SETTINGS, OptimizationSettings
from lightning_attractors.models.cross_entropy import CrossEntropyClassifier
from lightning_attractors.models.nonexpansive_stages import NonexpansiveStages

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
        activation: σ: a name in :data:`~lightning_attractors.dynamics.nonexpansive.MONOTONE` or a module.
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
        layers: everything before the head, :class:`~lightning_attractors.models.NonexpansiveStages`.
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
        _check_training(loss, temperature, margin, radius)
        self._save_settings()
        self.image_shape = image_shape
        self.loss_name, self.temperature, self.margin, self.radius = loss, temperature, margin, radius
        self.layers = NonexpansiveStages(
            image_shape,
            widths,
            depths,
            strides,
            kernel_size,
            padding,
            pool,
            dense_depth,
            dense_width,
            span,
            activation,
            lipschitz,
            method,
            max_substeps,
            constrained=constrained,
        )
        self.head = ControlledLinear(DenseOperator(self.layers.num_features, num_classes), constrained)
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
        super().constrain_()
        if self.head.controlled:
            self.head.operator.retract_(1.0)


remember(NonexpansiveNet, _COMPUTES_BY)


def _check_temperature(temperature: float) -> None:
    """See that float32 can hold logits divided by it, and tell them apart.

    Raises:
        SettingError: if it lies outside its range.
    """
    fits = isinstance(temperature, int | float) and 1e-6 <= temperature <= 1e6
    require(fits, "temperature", temperature, "must be from 1e-6 to 1e6")


def _check_training(loss: str, temperature: float, margin: float, radius: float) -> None:
    """Check what concerns training.

    Raises:
        SettingError: if a setting lies outside its range.
    """
    require(loss in ("cross_entropy", "hinge"), "loss", loss, "must be cross_entropy or hinge")
    _check_temperature(temperature)
    enough = 0 <= margin < math.inf and (margin > 0 or loss != "hinge")
    require(enough, "margin", margin, "must be finite and at least 0, above 0 for hinge")
    require(0 < radius < math.inf, "radius", radius, "must be finite and above 0")
