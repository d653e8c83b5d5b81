"""What the attractor models share: integration, logits, loss, metrics, the contract of their certificate."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_attractors.certificates import NormName, Traps, remember
from lightning_attractors.dynamics.integrate import (
    STEPS,
    IntegratorName,
    Step,
    VectorField,
    clipped,
    euler_maruyama,
    integrate,
    states,
)
from lightning_attractors.dynamics.planted import CoupledField, DampedNoise, has_fused_step, integrate_fused
from lightning_attractors.dynamics.recomputation import recomputed, segments
from lightning_attractors.errors import SettingError, require, require_sensible
from lightning_attractors.keywords import Unpack
from lightning_attractors.memory import require_memory
from lightning_attractors.metrics import TrajectoryError
from lightning_attractors.models.attractor_metrics import AttractorMetrics, squared_distance
from lightning_attractors.models.backbones import count_features
from lightning_attractors.models.base import OptimizationSettings
from lightning_attractors.models.basin_training import BasinTraining, Flown
from lightning_attractors.models.basins import COMPUTES_BY, certified_basins, certified_radii, traps_of, tubes
from lightning_attractors.models.behind_backbone import BackboneClassifier
from lightning_attractors.models.noise_stream import NoiseStream
from lightning_attractors.models.overlaps import logit_scale, overlaps
from lightning_attractors.random import keyed_generator

_MOST_STEPS = 100_000  # minutes for every batch, and no end to them with ten times as many


class AttractorClassifier(BackboneClassifier):
    """A classifier whose images, or features of them, are initial states and whose classes are attractors.

    A family supplies its vector field, :meth:`field`, and may add noise to it, :meth:`noise`.

    Args:
        attractors: one pattern per class, shape (K, N); what follows decides on N, as
            :func:`~lightning_attractors.models.count_nodes` says.
        image_shape: shape (C, H, W) of the images.
        dt: step length Δt, above 0.
        steps: integration steps while training, at least 1.
        eval_steps: integration steps otherwise; by default ``steps``.
        integrator: ``euler``, ``heun`` or ``rk4``.
        closeness: metrics of the family, by name, that compare final states (B, N) with attractors (B, N), if
            it has any.
        bound: states are clamped to [−bound, bound] after every step, if given.
        num_realisations: realisations of the noise that an evaluation averages over.
        backbone: gives features, of any shape, of a batch of images; flattens them by default.
        nodes: number of nodes N, if a linear map is to lead to them; by default each feature is a node.
        recompute: keep every √steps-th state alone for the gradient, and compute the others again.
        basins: how to train for wide basins, if at all; then ``val/accuracy`` chooses the best checkpoint.
        **optimization: the settings of :class:`~lightning_attractors.models.base.Classifier`.

    Attributes:
        backbone: the backbone.
        embedding: the linear map from features to nodes, or None.

    Raises:
        SettingError: if a setting lies outside its range, or backbone, nodes and attractors do not fit.
    """

    monitor = "val/accuracy"
    divergence_hint = "lower the learning rate (model.optimizer, model.optimizers) or model.dt"
    certified_norm: NormName = "l2"
    certified_box = (-math.inf, math.inf)
    certified_seconds = 2.0
    attractors: Tensor
    embedding: nn.Linear | None
    val_metrics: AttractorMetrics
    test_metrics: AttractorMetrics

    def __init__(
        self,
        attractors: Tensor,
        image_shape: tuple[int, int, int],
        dt: float = 0.1,
        steps: int = 40,
        eval_steps: int | None = None,
        integrator: IntegratorName = "euler",
        closeness: dict[str, Metric] | None = None,
        bound: float | None = None,
        num_realisations: int = 1,
        backbone: nn.Module | None = None,
        nodes: int | None = None,
        recompute: bool = False,
        basins: BasinTraining | None = None,
        **optimization: Unpack[OptimizationSettings],
    ) -> None:
        super().__init__(num_classes=len(attractors), **optimization)
        require(len(attractors) >= 2, "num_classes", len(attractors), "must be at least 2")
        require_sensible("dt", dt)
        for name, value in (("steps", steps), ("eval_steps", steps if eval_steps is None else eval_steps)):
            require(value >= 1, name, value, "must be at least 1")
            require(value <= _MOST_STEPS, name, value, f"must be at most {_MOST_STEPS:,}: take a larger dt")
        require(integrator in STEPS, "integrator", integrator, f"must be one of {sorted(STEPS)}")
        self.register_buffer("attractors", attractors)
        self.image_shape = image_shape
        self.backbone = nn.Flatten() if backbone is None else backbone
        self.num_features = count_features(self.backbone, image_shape)
        self.embedding = None if nodes is None else nn.Linear(self.num_features, nodes)
        needed, given = self.num_features if nodes is None else nodes, attractors.shape[1]
        require(
            given == needed, "attractors", f"{given} nodes", f"must have {needed}, as initial states have"
        )
        self.dt = dt
        self.steps = steps
        self.eval_steps = eval_steps or steps
        self.integrator = integrator
        self.bound = bound
        self.recompute = recompute
        self.num_realisations = num_realisations
        self.basins = basins
        if basins is not None:
            valid = f"must be at most steps, {steps}"
            require(basins.decide <= steps, "basins.decide", basins.decide, valid)
            self.monitor, self.monitor_mode = "val/accuracy", "max"
        self._traps: tuple[tuple[Any, ...], Tensor, Traps] | None = None
        self._training_calls = 0
        self.logit_scale = logit_scale(attractors)
        self.val_metrics = AttractorMetrics(len(attractors), num_realisations, closeness or {})
        self.test_metrics = AttractorMetrics(len(attractors), num_realisations, closeness or {})
        self.test_errors = TrajectoryError(self.eval_steps + 1)

    @abstractmethod
    def field(self) -> VectorField:
        """The vector field for one integration, with whatever it needs at every step formed once.

        Any function of states (..., N) will do; a type with a
        :class:`~lightning_attractors.dynamics.planted.FusedStep` is faster under Euler.
        """

    def noise(self, stream: NoiseStream, *key: int) -> DampedNoise | None:
        """One realisation of the noise, a function of the seed, the rank, the stream and the key.

        None where there is no noise, as in this base.
        """
        return None

    def vector_field(self, x: Tensor) -> Tensor:
        """F(x) of the flow, without noise, for states of shape (..., N)."""
        return self.field()(x)

    def step_map(self, x: Tensor) -> Tensor:
        """One step of the discrete map that really runs, without noise, for states of shape (..., N)."""
        return self._step(None)(self.field(), x, self.dt)

    def final_state(self, images: Tensor, realisation: int = 0) -> Tensor:
        """States (B, N) after the integration from images (B, C, H, W), differentiable in both."""
        return self._final_state(images, self._forward_noise(realisation))

    def states(self, images: Tensor, steps: int | None = None, realisation: int = 0) -> Iterator[Tensor]:
        """The ``steps + 1`` states (B, N) from the images on; by default ``eval_steps``."""
        return self._states(images, steps or self.eval_steps, self._forward_noise(realisation))

    def _forward_noise(self, realisation: int) -> DampedNoise | None:
        # An evaluated model is one function, which an attack can rely on; in training every call differs.
        self._training_calls += self.training
        return self.noise(NoiseStream.FORWARD, self._training_calls if self.training else 0, realisation)

    def _final_state(self, images: Tensor, noise: DampedNoise | None) -> Tensor:
        return self._fly(self.field(), self.initial_state(images), noise, self.num_steps)

    def _fly(self, field: VectorField, x: Tensor, noise: DampedNoise | None, steps: int) -> Tensor:
        if self.integrator == "euler" and has_fused_step(field):
            return integrate_fused(field, x, self.dt, steps, self.bound, noise, self.recompute)
        step = self._step(noise)
        if self.recompute and torch.is_grad_enabled():
            generator = None if noise is None else noise.generator
            return recomputed(lambda s, n: integrate(field, s, self.dt, n, step), x, steps, generator)
        return integrate(field, x, self.dt, steps, step)

    def _states(self, images: Tensor, steps: int, noise: DampedNoise | None) -> Iterator[Tensor]:
        return states(self.field(), self.initial_state(images), self.dt, steps, self._step(noise))

    def _step(self, noise: DampedNoise | None) -> Step:
        step = STEPS[self.integrator] if noise is None else euler_maruyama(noise)
        return step if self.bound is None else clipped(step, self.bound)

    @property
    def num_steps(self) -> int:
        """Integration steps in the present mode, training or evaluation."""
        return self.steps if self.training else self.eval_steps

    def equilibria(self) -> Tensor:
        """The planted attractors, shape (K, N)."""
        return self.attractors

    def initial_state(self, images: Tensor) -> Tensor:
        """States x(0), shape (B, N): images (B, C, H, W), or their features, embedded where there is a map.

        Raises:
            SettingError: if the images do not give as many features as those of ``image_shape``.
        """
        features = self.backbone(images).flatten(1)
        require(
            features.shape[1] == self.num_features,
            "image_shape",
            tuple(images.shape[1:]),
            f"this model takes {self.num_features} features, those of images of shape {self.image_shape}",
        )
        state = features if self.embedding is None else self.embedding(features)
        return state.to(images.dtype)  # what autocast has shortened

    def logits_of(self, states: Tensor) -> Tensor:
        """Overlaps of states (B, N) with the attractors, scaled to logits (B, K).

        The overlap with attractor φ_k is (⟨x, φ_k⟩ − (‖φ_k‖² − n)/2) / n, n being the mean of all ‖φ_k‖²: the
        inner product in units of n, corrected where attractors differ in size so that the nearest one has the
        largest. The scale is such that a state at its attractor has softmax confidence 0.99 or more.
        """
        with torch.autocast(states.device.type, enabled=False):
            return self.logit_scale * overlaps(states, self.attractors)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0, 1]; with noise, their mean over the realisations."""
        if self.training or self.num_realisations == 1:
            return self.logits_of(self.final_state(images))
        logits = [self.logits_of(self.final_state(images, r)) for r in range(self.num_realisations)]
        return torch.stack(logits).mean(dim=0)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = self.training_batch(batch, batch_idx)
        if batch_idx == 0:  # states are kept, for the gradient
            parts = segments(self.steps, self.recompute)
            numbers = (len(parts) + max(parts)) * len(images) * self.attractors.shape[1]
            require_memory("steps", self.steps, numbers, images.device)
        noise = self.noise(NoiseStream.TRAIN, self.global_step, batch_idx)
        if self.basins is None:
            loss = squared_distance(self._final_state(images, noise), self.attractors[labels])
        else:
            loss = self._basin_loss(self.basins, images, labels, noise, batch_idx)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def _basin_loss(
        self, basins: BasinTraining, images: Tensor, labels: Tensor, noise: DampedNoise | None, batch_idx: int
    ) -> Tensor:
        field = self.field()
        valid = "must be null: this model's field is no CoupledField"
        require(isinstance(field, CoupledField), "basins", type(field).__name__, valid)
        flown = Flown(
            lambda x, count: self._fly(field, x, noise, count),
            lambda x, count: states(field, x, self.dt, count, self._step(None)),
            self.logits_of,
            self.attractors,
            cast(CoupledField, field).coupling,
            self.steps,
        )
        generator = keyed_generator(self.device, self.global_rank, self.global_step, batch_idx)
        return basins.loss(flown, self.initial_state(images), labels, generator)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = self.evaluation_batch(batch)
        for r in range(self.num_realisations):
            final = self._final_state(images, self.noise(NoiseStream.VALIDATION, batch_idx, r))
            self._measure(self.val_metrics, final, self.attractors[labels], labels, r)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = self.evaluation_batch(batch)
        targets = self.attractors[labels]
        for r in range(self.num_realisations):
            errors = []
            for state in self._states(images, self.eval_steps, self.noise(NoiseStream.TEST, batch_idx, r)):
                errors.append((state - targets).square().sum(dim=1))
            self.test_errors.update(torch.stack(errors))
            self._measure(self.test_metrics, state, targets, labels, r)

    def _measure(
        self, metrics: AttractorMetrics, states: Tensor, targets: Tensor, labels: Tensor, realisation: int
    ) -> None:
        logits = self.logits_of(states)
        self.note_logits(logits)
        metrics.update(logits, states, targets, labels, realisation)

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.test_errors.reset()

    def noise_is_silent(self) -> bool:
        """Whether evaluation is without noise."""
        return self.num_realisations == 1 and self.noise(NoiseStream.FORWARD, 0, 0) is None

    def certified_radii(self, images: Tensor, labels: Tensor) -> Tensor:
        """Radii within which images (B, C, H, W) are proved to keep their labels (B,) at the evaluation.

        In ``certified_norm``, by tubes: see :mod:`~lightning_attractors.certificates.tubes`. In image space
        where pixels are the nodes, or behind a backbone whose Lipschitz constant is certified. An image takes
        at most about ``certified_seconds``; then it keeps what is proved so far.

        Returns:
            Shape (B,), float64; 0 where the label does not win.

        Raises:
            SettingError: if there is noise in evaluation, the field does not say how its nodes bend, the
                backbone has no certified constant, or ``forward`` may compute something else.
        """
        return certified_radii(self, AttractorClassifier, images, labels)

    def basin_radii(self, images: Tensor, labels: Tensor) -> Tensor:
        """Radii as those of :meth:`certified_radii` within which all ends at the label's attractor, for ever.

        For models of up to 128 nodes: the tube has to end in the :meth:`traps` of the attractor.
        """
        return certified_basins(self, AttractorClassifier, images, labels)

    def tubes(self, images: Tensor, radii: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """At every step states (B, N), and how far in L2 those of images within radii (B,) may be of them."""
        return tubes(self, AttractorClassifier, images, radii)

    def traps(self) -> Traps:
        """A ball around each attractor that every state comes back to, nearer than before, for ever."""
        weights = nn.utils.parameters_to_vector(self.parameters()).detach()  # a copy
        settings = (self.dt, self.integrator, self.bound, weights.dtype, weights.device)
        known = self._traps
        if known is None or known[0] != settings or not torch.equal(known[1], weights):
            self._traps = known = settings, weights, traps_of(self)
        return known[2]

    def mse_over_time(self) -> Tensor:
        """MSE(t) over the test images, shape (eval_steps + 1,), after ``trainer.test``."""
        curve: Tensor = self.test_errors.compute()
        return curve

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        theirs = checkpoint["state_dict"]["attractors"]
        if not torch.allclose(theirs.to(self.attractors), self.attractors, rtol=1e-5, atol=1e-6):
            valid = "what plants the attractors must be as it was: patterns, block, eigenvalue, c, gain or a"
            raise SettingError("ckpt_path", "a checkpoint with other attractors", valid)


remember(AttractorClassifier, COMPUTES_BY)
