"""What the attractor models share: logits, loss, metrics and the contract of their certificate."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_attractors.errors import require
from lightning_attractors.metrics import AttractorAccuracy, Overlap, TrajectoryError
from lightning_attractors.models.base import Classifier

_CONFIDENCE_AT_ATTRACTOR = 0.99


class AttractorClassifier(Classifier):
    """A classifier whose images are initial states and whose classes are attractors.

    Args:
        attractors: one pattern per class, shape (K, N).
        image_shape: shape (C, H, W) of the images, with N pixels in all.
        dt: step length Δt, above 0.
        steps: integration steps while training, at least 1.
        eval_steps: integration steps otherwise; by default ``steps``.
        **optimization: the settings of :class:`~lightning_attractors.models.base.Classifier`.
    """

    monitor = "val/attractor_accuracy"
    divergence_hint = "lower the learning rate (model.optimizer, model.optimizers) or model.dt"
    attractors: Tensor

    def __init__(
        self,
        attractors: Tensor,
        image_shape: tuple[int, int, int],
        dt: float,
        steps: int,
        eval_steps: int | None,
        **optimization: Any,
    ) -> None:
        super().__init__(**optimization)
        require(dt > 0, "dt", dt, "must be above 0")
        require(steps >= 1, "steps", steps, "must be at least 1")
        require(eval_steps is None or eval_steps >= 1, "eval_steps", eval_steps, "must be at least 1")
        self.register_buffer("attractors", attractors)
        self.image_shape = tuple(image_shape)
        self.dt = dt
        self.steps = steps
        self.eval_steps = eval_steps or steps
        self.logit_scale = _logit_scale(attractors)
        self.val_metrics = AttractorMetrics(len(attractors))
        self.test_metrics = AttractorMetrics(len(attractors))
        self.test_errors = TrajectoryError(self.eval_steps + 1)

    @abstractmethod
    def vector_field(self, x: Tensor) -> Tensor:
        """F(x) of the flow for states of shape (..., N)."""

    @abstractmethod
    def step_map(self, x: Tensor) -> Tensor:
        """One step of the discrete map that really runs, for states of shape (..., N)."""

    @abstractmethod
    def final_state(self, images: Tensor) -> Tensor:
        """States (B, N) after the integration from images (B, C, H, W), differentiable in both."""

    @abstractmethod
    def states(self, images: Tensor, steps: int | None = None) -> Iterator[Tensor]:
        """The ``steps + 1`` states (B, N) from the images on; by default ``eval_steps``."""

    @property
    def num_steps(self) -> int:
        """Integration steps in the present mode, training or evaluation."""
        return self.steps if self.training else self.eval_steps

    def equilibria(self) -> Tensor:
        """The planted attractors, shape (K, N)."""
        return self.attractors

    def initial_state(self, images: Tensor) -> Tensor:
        """Flatten images (B, C, H, W) to states (B, N).

        Raises:
            SettingError: if the images do not have N pixels.
        """
        state = images.flatten(1)
        nodes = self.attractors.shape[1]
        require(
            state.shape[1] == nodes,
            "image_shape",
            tuple(images.shape[1:]),
            f"this model has {nodes} nodes, for images of shape {self.image_shape}",
        )
        return state

    def logits_of(self, states: Tensor) -> Tensor:
        """Overlaps of states (B, N) with the attractors, scaled to logits (B, K).

        The scale is such that a state at its attractor has softmax confidence 0.99 or more.
        """
        with torch.autocast(states.device.type, enabled=False):
            overlaps = states @ self.attractors.T / self.attractors.square().sum(dim=1)
            return self.logit_scale * overlaps

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0, 1]."""
        return self.logits_of(self.final_state(images))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = _squared_distance(self.final_state(images), self.attractors[labels])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self._record("val", self.val_metrics, self.final_state(images), labels)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        targets = self.attractors[labels]
        errors = []
        for state in self.states(images):
            errors.append((state - targets).square().sum(dim=1))
        self.test_errors.update(torch.stack(errors))
        self._record("test", self.test_metrics, state, labels)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Logits of a batch of images, or of images with labels."""
        images: Tensor = batch[0] if isinstance(batch, tuple | list) else batch
        logits: Tensor = self(images)
        return logits

    def on_test_epoch_start(self) -> None:
        self.test_errors.reset()

    def mse_over_time(self) -> Tensor:
        """MSE(t) over the test images, shape (eval_steps + 1,), after ``trainer.test``."""
        curve: Tensor = self.test_errors.compute()
        return curve

    def _record(self, stage: str, metrics: AttractorMetrics, states: Tensor, labels: Tensor) -> None:
        targets = self.attractors[labels]
        metrics.accuracy.update(self.logits_of(states), labels)
        metrics.loss.update(_squared_distance(states, targets), weight=len(labels))
        for similarity in (metrics.attractor_accuracy, metrics.perfect, metrics.overlap):
            similarity.update(states, targets)
        for name, metric in metrics.named_children():
            self.log(
                f"{stage}/{name}", cast(Metric, metric), on_epoch=True, prog_bar=name == "attractor_accuracy"
            )


class AttractorMetrics(nn.Module):
    """The metrics of one stage; their names are the names they are logged by."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.attractor_accuracy = AttractorAccuracy()
        self.perfect = AttractorAccuracy(threshold=1.0)
        self.overlap = Overlap()
        self.loss = MeanMetric()


def _squared_distance(states: Tensor, targets: Tensor) -> Tensor:
    return (states - targets).square().sum(dim=1).mean()


def _logit_scale(attractors: Tensor) -> float:
    """Scale at which the closest pair of attractors still has confidence 0.99 at either one."""
    num_classes = len(attractors)
    if num_classes == 1:
        return 1.0
    overlaps = attractors @ attractors.T / attractors.square().sum(dim=1)
    closest = float(overlaps.fill_diagonal_(-torch.inf).max())
    odds = _CONFIDENCE_AT_ATTRACTOR / (1 - _CONFIDENCE_AT_ATTRACTOR)
    return math.log(odds * (num_classes - 1)) / (1 - closest)
