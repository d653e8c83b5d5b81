"""KrotovHopfield: filters learned locally and without labels, a classifier on top of them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_attractors.contracts import FilterPhase
from lightning_attractors.dynamics.plasticity import (
    KHConv2d,
    RankingName,
    ScheduleName,
    check_plasticity,
    learning_rate,
    normalized_update,
)
from lightning_attractors.errors import SettingError, require
from lightning_attractors.keywords import Unpack
from lightning_attractors.models.activations import ActivationName
from lightning_attractors.models.base import OPTIMIZATION_SETTINGS, FurtherOptimizationSettings
from lightning_attractors.models.convolutional import ConvolutionalClassifier
from lightning_attractors.optim import OptimizerCallable
from lightning_attractors.random import keyed_generator
from lightning_attractors.reading import UNREADABLE
from lightning_attractors.writing import write_atomically


class KrotovHopfield(ConvolutionalClassifier):
    """Filters that learn locally → max-pooling → σ(·)ⁿ → linear layer (Krotov & Hopfield, 2019).

    The filters learn without labels, by
    :func:`~lightning_attractors.dynamics.plasticity.plasticity_update`: in the epochs for which
    ``TwoPhaseTrainer`` sets ``filter_phase``, a training step visits all positions of its images in random
    order, and at each moves the filters by η(t) times the normalised update of the
    patches there, summed over all processes. The rule is computed in the filters' own dtype, also under
    autocast. In all other epochs, and under other trainers, they stay as they are and the linear layer is
    trained with the cross-entropy (Torvik, 2023, LL-models).

    Args:
        num_classes: number of classes.
        image_shape: shape (C, H, W) of the images.
        grid: K, the side of the square that K² filters form, at least 2.
        kernel_size: side w of a filter, from 1 to the smaller side of the image.
        p: exponent of the norm, in [2, 8].
        m: rank of the filter that is pushed away from a patch, from 2 to K².
        delta: how strongly it is, Δ, at least 0.
        ranking: by ``current`` or by ``activity``.
        filter_lr: η₀, the largest change of an entry in each of the first updates, above 0.
        schedule: η(t) over the T filter epochs: ``linear``, ``exponential``, ``cosine`` or ``step``.
        tau: τ of the exponential schedule, at least 0.
        gamma: γ of the step schedule, in (0, 1].
        step: s of the step schedule, at least 1.
        activation: σ: ``ReLU``, ``ELU``, ``GELU``, ``PReLU`` or ``rExp`` (max(0, eˣ − 1)).
        power: n, at least 1.
        pool_size: side w_pool of a pooling window, from 1 to the smaller side of the feature map.
        pool_stride: stride s_pool of the pooling, at least 1.
        filters_from: file of :meth:`save_filters` to start from, in place of N(0, 1).
        seed: seed of the order of positions, at least 0.
        optimizer: makes the optimiser of the classifier's parameters.
        **optimization: further settings of :class:`~lightning_attractors.models.base.Classifier`; schedules
            count the epochs of the classifier.

    Attributes:
        filter_phase: set by a trainer while the filters learn, otherwise None.
        trains_on_features: set by a trainer whose training batches hold :meth:`frozen_features`.

    Raises:
        SettingError: if a setting lies outside its range, or the file of filters does not fit.

    Example:
        >>> model = KrotovHopfield(num_classes=3, image_shape=(1, 7, 7), grid=2, pool_size=2)
        >>> model(torch.rand(5, 1, 7, 7)).shape
        torch.Size([5, 3])
    """

    conv: KHConv2d
    divergence_hint = "lower the learning rate (model.optimizer, model.filter_lr)"
    filter_phase: FilterPhase | None = None
    trains_on_features: bool = False

    def __init__(
        self,
        num_classes: int = 10,
        image_shape: tuple[int, int, int] = (3, 32, 32),
        grid: int = 10,
        kernel_size: int = 4,
        p: float = 4.0,
        m: int = 3,
        delta: float = 0.1,
        ranking: RankingName = "current",
        filter_lr: float = 1e-3,
        schedule: ScheduleName = "cosine",
        tau: float = 3.25,
        gamma: float = 0.1,
        step: int = 10,
        activation: ActivationName = "GELU",
        power: int = 12,
        pool_size: int = 5,
        pool_stride: int = 2,
        filters_from: str | None = None,
        seed: int = 0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        **optimization: Unpack[FurtherOptimizationSettings],
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            image_shape=image_shape,
            grid=grid,
            kernel_size=kernel_size,
            activation=activation,
            power=power,
            pool_size=pool_size,
            pool_stride=pool_stride,
            optimizer=optimizer,
            **optimization,
        )
        require(grid >= 2, "grid", grid, "must be at least 2")
        check_plasticity(grid**2, p, m, delta, ranking)
        require(0 < filter_lr < math.inf, "filter_lr", filter_lr, "must be above 0 and finite")
        require(seed >= 0, "seed", seed, "must be at least 0")
        self.m, self.delta, self.ranking, self.seed = m, delta, ranking, seed
        self._rate = partial(
            learning_rate,
            schedule,
            initial=filter_lr,
            tau=tau,
            gamma=gamma,
            step=step,
        )
        self._rate(0, 1)  # an unknown schedule is refused here, not in training
        # Without the path: the filters themselves are in the checkpoint.
        self.save_hyperparameters(ignore=[*OPTIMIZATION_SETTINGS, "filters_from"])
        self.conv = KHConv2d(image_shape[0], grid**2, kernel_size, p)
        self.conv.weight.requires_grad_(False)
        if filters_from is not None:
            self.conv.weight.copy_(_read_filters(filters_from, self.filters, p))

    @property
    def p(self) -> float:
        """The exponent of the norm that filters converge to the unit sphere of."""
        return self.conv.p

    def bounds(self) -> Tensor:
        """By Hölder's inequality ‖W_k‖_p^(p−1), since patches have norm 1; 1 for converged filters."""
        p = self.p
        return self.filters.flatten(1).abs().pow(p).sum(dim=1).pow((p - 1) / p)

    def currents(self, images: Tensor) -> Tensor:
        """⟨W_k, v⟩_k of all patches v of images (B, C, H, W), shape (B, F, H−w+1, W−w+1)."""
        currents: Tensor = self.conv(images)
        return currents

    def frozen_features(self, images: Tensor) -> Tensor:
        """What can be computed once for images (B, C, H, W) that stay as they are while filters do."""
        return self.pooled(images)

    @property
    def batches_hold_images(self) -> bool:
        return not self.trains_on_features

    def training_logits(self, inputs: Tensor) -> Tensor:
        return self.head(inputs) if self.trains_on_features else self(inputs)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        if self.filter_phase is None:
            return super().training_step(batch, batch_idx)
        return self._filter_step(self.filter_phase, batch[0], batch_idx)

    @torch.no_grad()
    def _filter_step(self, phase: FilterPhase, images: Tensor, batch_idx: int) -> Tensor:
        """Move the filters; gives their largest entry, which is finite or the run is stopped."""
        epoch = self.current_epoch
        rate = self._rate(epoch, phase.epochs)
        # The same on all processes, since they add up the updates of the same positions.
        generator = keyed_generator(torch.device("cpu"), self.seed, epoch, batch_idx)
        updates = self.conv.plasticity_by_position(
            images, self.m, self.delta, self.ranking, phase.patch_fraction, generator
        )
        with phase.autocast(self.device.type):
            for update in updates:
                total = self.trainer.strategy.reduce(update, reduce_op="sum")
                self.conv.weight.add_(normalized_update(total), alpha=rate)
        self.log("filters/learning_rate", self.on_device(rate))
        return self.conv.weight.abs().max()

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if self.filter_phase is None:
            super().backward(loss, *args, **kwargs)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        if self.filter_phase is None:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        elif optimizer_closure is not None:
            optimizer_closure()  # the training step, which has moved the filters itself

    def save_filters(self, path: str | Path) -> None:
        """Write the filters to a file, whole or not at all, for ``filters_from`` of other models."""
        buffer = io.BytesIO()
        torch.save({"filters": self.filters.detach().cpu(), "p": self.p}, buffer)
        write_atomically(Path(path), buffer.getvalue())


def _read_filters(path: str, like: Tensor, p: float) -> Tensor:
    """The filters of a file of :meth:`KrotovHopfield.save_filters`.

    Raises:
        SettingError: if there is no such file, or its filters have another shape or norm.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        filters, theirs = content["filters"], content["p"]
        shapes = tuple(filters.shape), tuple(like.shape)
    except OSError as error:
        raise SettingError("filters_from", path, f"cannot be read ({error.strerror})") from error
    except UNREADABLE as error:
        raise SettingError("filters_from", path, "must be a file of save_filters, and whole") from error
    problem = f"holds filters of shape {shapes[0]}, this model needs shape {shapes[1]}"
    require(shapes[0] == shapes[1], "filters_from", path, problem)
    finite = bool(filters.isfinite().all())
    require(finite, "filters_from", path, "holds filters that are not finite: take others")
    require(theirs == p, "filters_from", path, f"holds filters learned with p={theirs}, this model has p={p}")
    return filters
