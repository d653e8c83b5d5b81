"""NMODE and nmODE+: neurons with a memory of their own, between any backbone and a linear head."""

from __future__ import annotations

import math
from typing import cast

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_attractors.certificates import (
    computes_as,
    finite_time_gain,
    interval_logits,
    interval_radii,
    interval_verified,
    linf_box,
    lipschitz_radii,
    margins,
    propagate,
    published_gain,
    remember,
    require_faithful,
    summing_products,
)
from lightning_attractors.dynamics.nmode import FlowMap, NMODELayer
from lightning_attractors.errors import SettingError, require, require_sensible
from lightning_attractors.keywords import Unpack
from lightning_attractors.linalg import matrix_norm
from lightning_attractors.memory import require_memory
from lightning_attractors.models.backbones import count_features
from lightning_attractors.models.base import OptimizationSettings
from lightning_attractors.models.behind_backbone import BackboneClassifier
from lightning_attractors.models.cross_entropy import CrossEntropyClassifier
from lightning_attractors.models.evaluation_mode import evaluating
from lightning_attractors.models.interval_training import IntervalTraining, is_certified, worst_case_loss
from lightning_attractors.models.trades import TRADES
from lightning_attractors.random import keyed_generator

# What beside ``forward`` a certificate takes for this class's own.
_COMPUTES_BY = frozenset(["backbone", "layer", "head", "features", "_require_faithful"])
# Streams of random numbers.
_TRAIN, _VALIDATION = 0, 1


class NMODE(BackboneClassifier, CrossEntropyClassifier):
    """Backbone → ẏ = −λy + sin²(y + W x + b) from y(0) = 0 to t̄ → linear head (Luo, He and Yi, 2024).

    With ``clip``, ``gain_penalty`` or weight decay (a setting of the optimiser) it is nmODE+. Whatever is
    trained against, certificates speak of images in [0, 1] and of changes measured in L∞.

    Args:
        num_classes: number of classes K.
        image_shape: shape (C, H, W) of the images.
        backbone: gives features, of any shape, of a batch of images; flattens them by default.
        width: number of neurons; with 0 the head sits on the backbone's features.
        decay: λ, above 0. Certificates hold for each; only ``published_gain``, 1/(λ − 1), is of λ > 1.
        time: t̄, above 0.
        clip: c, if given: every entry of W is brought into [−c, c] after every optimiser step; above 0.
        gain_penalty: η: the loss grows by η τ, τ = max_i Σ_j |w_ij|; at least 0.
        label_smoothing: share of the target that goes to all classes alike, in [0, 1], where training is on
            clean images.
        trades: how to train against attacks, if at all; then ``val/robust_accuracy``, the accuracy under
            the attack that is trained against, chooses the best checkpoint.
        intervals: how to train against interval bounds, if at all; then ``val/certified_accuracy``, at the
            target ε and computed in the precision of the weights, chooses the best checkpoint.
            ``test/certified_accuracy`` is the proved one, of
            :func:`~lightning_attractors.certificates.interval_verified`.
        **optimization: the settings of :class:`~lightning_attractors.models.base.Classifier`.

    Attributes:
        backbone: the backbone.
        layer: the nmODE layer, or the identity where ``width`` is 0.
        head: the linear head.

    Raises:
        SettingError: if a setting lies outside its range, or the backbone does not fit.

    Example:
        >>> model = NMODE(num_classes=3, image_shape=(1, 7, 7), width=16)
        >>> model(torch.rand(5, 1, 7, 7)).shape
        torch.Size([5, 3])
    """

    layer: NMODELayer | nn.Identity
    certified_box = (0.0, 1.0)

    def __init__(
        self,
        num_classes: int = 10,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        backbone: nn.Module | None = None,
        width: int = 2048,
        decay: float = 3.0,
        time: float = 1.0,
        clip: float | None = None,
        gain_penalty: float = 0.0,
        label_smoothing: float = 0.0,
        trades: TRADES | None = None,
        intervals: IntervalTraining | None = None,
        **optimization: Unpack[OptimizationSettings],
    ) -> None:
        super().__init__(num_classes, **optimization)
        _check(width, decay, time, clip, gain_penalty)
        require(0 <= label_smoothing <= 1, "label_smoothing", label_smoothing, "must be from 0 to 1")
        self.save_settings("backbone", "trades", "intervals")
        self.backbone = nn.Flatten() if backbone is None else backbone
        self.image_shape = image_shape
        features = count_features(self.backbone, image_shape)
        require_memory("width", width, width * (features + num_classes))
        self.layer = NMODELayer(features, width, decay, time) if width else nn.Identity()
        self.head = nn.Linear(width or features, num_classes)
        self.clip = clip
        self.gain_penalty = gain_penalty
        self.label_smoothing = label_smoothing
        self.trades = trades
        self.intervals = intervals
        if trades is not None:
            require(intervals is None, "trades", trades, "must be null where intervals are given")
            self.monitor = "val/robust_accuracy"
            robust = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
            self.val_metrics["robust_accuracy"] = robust
        if intervals is not None:
            propagate(self.features, *torch.zeros(2, 1, *image_shape))  # refuses layers it does not know
            self.monitor = "val/certified_accuracy"
            self.val_metrics["certified_accuracy"] = MeanMetric()
            self.test_metrics["certified_accuracy"] = MeanMetric()
        self.constrain_()

    @property
    def features(self) -> nn.Sequential:
        """All but the head: gives what the head acts on, shape (B, width)."""
        return nn.Sequential(self.backbone, nn.Flatten(), self.layer)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0, 1], differentiable in the images."""
        logits: Tensor = self.head(self.layer(self.backbone(images).flatten(1)))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = self.training_batch(batch, batch_idx)
        loss = self.classification_loss(images, labels, batch_idx)
        if isinstance(self.layer, NMODELayer):
            # without a penalty τ is only logged, which needs no graph
            with torch.set_grad_enabled(self.gain_penalty > 0):
                tau = self.tau()
            loss = loss + self.gain_penalty * tau
            self.log("train/tau", tau)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def classification_loss(self, images: Tensor, labels: Tensor, batch_idx: int) -> Tensor:
        """The loss of a batch, without the penalty."""
        if self.trades is not None:
            attacked = self.attacked(images, _TRAIN, self.global_step, batch_idx)
            return self.trades.loss(self(images), self(attacked), labels)
        if self.intervals is not None:
            batches = self.trainer.num_training_batches
            epsilon, kappa = self.intervals.schedule(self.current_epoch + batch_idx / batches)
            self.log("train/epsilon", self.on_device(epsilon))
            return self.interval_loss(images, labels, epsilon, kappa)
        return functional.cross_entropy(self(images), labels, label_smoothing=self.label_smoothing)

    def attacked(self, images: Tensor, *key: int) -> Tensor:
        """What TRADES finds around images, from a random start that is a function of its seed and the key."""
        assert self.trades is not None
        generator = keyed_generator(self.device, self.trades.seed, self.global_rank, *key)
        with evaluating(self):
            return self.trades.attack(self.__call__, images, generator)

    def interval_loss(self, images: Tensor, labels: Tensor, epsilon: float, kappa: float) -> Tensor:
        """κ CE(logits) + (1 − κ) CE(worst logits of the ball of radius ε), for labels (B,)."""
        clean = functional.cross_entropy(self(images), labels)
        if kappa == 1:
            return clean
        worst = worst_case_loss(self.margins(images, labels, epsilon), labels)
        return kappa * clean + (1 - kappa) * worst

    def margins(self, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        """Lower bounds of logit_label − logit_j over the L∞ ball of radius ε in [0, 1], shape (B, K).

        For images in [0, 1]; in their precision, also under autocast, so that in float32 nothing is proved.
        """
        # not by the bounds of linf_box, which refuse nan: what to do about it is for FiniteLoss to say
        lower, upper = (end.clamp(0, 1) for end in linf_box(images, epsilon))
        return margins(self.features, self.head, lower, upper, labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = self.evaluation_batch(batch)
        self.measure(self.val_metrics, images, labels)
        if self.trades is not None:
            robust = cast(Metric, self.val_metrics["robust_accuracy"])
            robust.update(self(self.attacked(images, _VALIDATION, batch_idx)), labels)
        if self.intervals is not None:
            certified = is_certified(self.margins(images, labels, self.intervals.epsilon), labels)
            cast(Metric, self.val_metrics["certified_accuracy"]).update(certified.float())

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = self.evaluation_batch(batch)
        self.measure(self.test_metrics, images, labels)
        if self.intervals is not None:
            parts, epsilon = (self.features, self.head), self.intervals.epsilon
            with summing_products(images.device):
                self._require_faithful(images)
                certified = interval_verified(*parts, images, labels, epsilon, bounds=self.certified_box)
            cast(Metric, self.test_metrics["certified_accuracy"]).update(certified.float())

    def tau(self) -> Tensor:
        """τ = max_i Σ_j |w_ij|, the L∞ norm of W."""
        return self._neurons().linear.weight.abs().sum(dim=1).max()

    def gain_bounds(self) -> dict[str, float]:
        """Bounds of what the nmODE layer does to a change of its input, in float64.

        Returns:
            ``decay`` λ; ``time`` t̄; ``exact_gain`` sup|Y′|, never less than that; ``finite_time_gain``
            (1 − e^(−(λ−1)t̄))/(λ − 1); ``published_gain`` 1/(λ − 1), only where λ > 1; ``tau`` τ;
            ``layer_bound`` τ sup|Y′|: a change of the features by δ changes no neuron by more than that
            times δ; ``layer_bound_l2`` ‖W‖₂ sup|Y′|, the same in L2. Nothing where there is no nmODE layer.
        """
        if isinstance(self.layer, nn.Identity):
            return {}
        layer = self.layer
        flow = layer.flow
        assert isinstance(flow, FlowMap)
        tau = float(layer.linear.weight.detach().double().abs().sum(dim=1).max())
        bounds = {
            "decay": flow.decay,
            "time": flow.time,
            "exact_gain": flow.gain,
            "finite_time_gain": finite_time_gain(flow.decay, flow.time),
        }
        if flow.decay > 1:
            bounds["published_gain"] = published_gain(flow.decay)
        # the sum of n numbers is rounded by less than n units in the last place
        rounding = 1 + layer.linear.in_features * torch.finfo(torch.float64).eps
        return bounds | {
            "tau": tau,
            "layer_bound": tau * flow.gain * rounding,
            "layer_bound_l2": matrix_norm(layer.linear.weight) * flow.gain,
        }

    def certified_radii(self, images: Tensor, labels: Tensor) -> Tensor:
        """L∞ radii within which images (B, C, H, W) in [0, 1] are proved to keep their labels (B,).

        They speak of images in [0, 1] alone. By intervals; where nothing but reshaping comes before the nmODE
        layer also by the Lipschitz constant, and the larger radius counts.

        Returns:
            Shape (B,), float64; 0 where the label does not win.

        Raises:
            SettingError: if the backbone has a layer without interval bounds, an image is outside [0, 1], or
                ``forward`` may compute something else than the layers: see
                :func:`~lightning_attractors.certificates.require_faithful`.
        """
        self._require_faithful(images)
        radii = interval_radii(self.features, self.head, images, labels, bounds=self.certified_box)
        if isinstance(self.layer, NMODELayer) and computes_as(self.backbone, nn.Flatten):
            by_gain = lipschitz_radii(self.layer, self.head, images.flatten(1), labels)
            radii = torch.maximum(radii, by_gain)
        return radii

    def _require_faithful(self, images: Tensor) -> None:
        """Refuse to certify what is not the function that ``forward`` computes."""
        features, head = self.features, self.head
        require_faithful(
            self,
            NMODE,
            _COMPUTES_BY,
            (features, head),
            lambda x: head(features(x)),
            interval_logits(features, head),
            images,
        )

    def _neurons(self) -> NMODELayer:
        if isinstance(self.layer, NMODELayer):
            return self.layer
        raise SettingError("width", 0, "must be above 0: there is no nmODE layer")

    def on_train_start(self) -> None:
        if isinstance(self.layer, NMODELayer):
            rank_zero_info(f"nmODE: {self.layer.integration}")
        if self.intervals is not None:
            needed, given = self.intervals.warmup + self.intervals.ramp, self.trainer.max_epochs or 0
            if 0 <= given < needed:
                rank_zero_warn(f"ε reaches its target after {needed:g} epochs, training ends after {given}")
        self.constrain_()  # weights from a checkpoint may have been trained without it

    @torch.no_grad()
    def constrain_(self) -> None:
        """Bring every entry of W into [−clip, clip], in place, and the backbone to where it may be."""
        super().constrain_()
        if self.clip is not None:
            self._neurons().linear.weight.clamp_(-self.clip, self.clip)


remember(NMODE, _COMPUTES_BY)


def _check(width: int, decay: float, time: float, clip: float | None, gain_penalty: float) -> None:
    """Check what concerns the nmODE layer.

    Raises:
        SettingError: if a setting lies outside its range.
    """
    require(width >= 0, "width", width, "must be at least 0")
    require_sensible("decay", decay)
    require_sensible("time", time)
    require(clip is None or 0 < clip < math.inf, "clip", clip, "must be null, or finite and above 0")
    valid = "must be finite and at least 0"
    require(0 <= gain_penalty < math.inf, "gain_penalty", gain_penalty, valid)
    if clip is not None:
        require_sensible("clip", clip)
    require(width > 0 or clip is None, "clip", clip, "must be null where width is 0")
    require(width > 0 or gain_penalty == 0, "gain_penalty", gain_penalty, "must be 0 where width is 0")
