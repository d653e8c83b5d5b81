"""SA-nODE: stable attractors for classification via ordinary differential equations."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attractors.dynamics.integrate import IntegratorName, integrate, reverse, rk4
from lightning_attractors.dynamics.planted import CouplingName, DoubleWellField, block_patterns, make_coupling
from lightning_attractors.errors import require, require_sensible
from lightning_attractors.keywords import Unpack
from lightning_attractors.metrics import AttractorAccuracy
from lightning_attractors.models.attractor import AttractorClassifier
from lightning_attractors.models.backbones import count_nodes
from lightning_attractors.models.base import OptimizationSettings
from lightning_attractors.models.basin_training import BasinTraining

# Share of the stability bound that trained eigenvalues may use; the rest is the slowest decay rate.
_BOUND_SHARE = 0.99
# The authors' public code clips the state to ±10a.
_CLIP = 10.0


class SANODE(AttractorClassifier):
    r"""ẋ = 4γ x (a² − x²) + β A x, with one planted attractor in {±a}^N per class (Marino et al., 2024).

    The image, or what a backbone makes of it, is the initial state; the class is the attractor that the state
    is carried to. A has the
    attractors in its kernel, so they are equilibria exactly. The flow is stable there while the real part of
    every eigenvalue λ of A stays below 8a²|γ|/β, β = 1/√N, and the Euler map while |1 + Δt(βλ − 8a²|γ|)| < 1,
    which implies the former and is sufficient for Runge-Kutta too. Training enforces it: after every step
    for the ``spectral`` coupling, every 50 steps and at the end of every epoch for the ``projected`` one.

    Args:
        num_classes: number of classes K.
        image_shape: shape (C, H, W) of the images.
        coupling: ``spectral`` (A = Φ Λ Φ⁻¹, as published) or ``projected`` (A = M (I − P), no solve).
        a: position of the wells, above 0.
        gamma: initial strength γ of the wells, above 0; trained, used as |γ|.
        dt: step length Δt, above 0.
        steps: integration steps while training, at least 1.
        eval_steps: integration steps otherwise; by default ``steps``.
        integrator: ``euler`` (as published), ``heun`` or ``rk4``.
        block: nodes of each class's block in its attractor; by default as many as fit.
        backbone: gives features, of any shape, of a batch of images; by default they are the C·H·W pixels.
        nodes: number of nodes N; a linear map, ``embedding``, leads to them from the features. By default
            each feature is a node.
        recompute: while training keep every √steps-th state alone, and compute the others once more for the
            gradient: memory goes with √steps, and a step takes up to a third longer.
        basins: how to train for wide basins, if at all.
        **optimization: the settings of :class:`~lightning_attractors.models.base.Classifier`.

    Raises:
        SettingError: if a setting lies outside its range.

    Example:
        >>> model = SANODE(num_classes=5, image_shape=(1, 7, 7))
        >>> model(torch.rand(3, 1, 7, 7)).shape
        torch.Size([3, 5])
    """

    monitor = "val/attractor_accuracy"

    def __init__(
        self,
        num_classes: int = 10,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        coupling: CouplingName = "spectral",
        a: float = 0.5,
        gamma: float = 0.4,
        dt: float = 0.1,
        steps: int = 55,
        eval_steps: int | None = None,
        integrator: IntegratorName = "euler",
        block: int | None = None,
        backbone: nn.Module | None = None,
        nodes: int | None = None,
        recompute: bool = False,
        basins: BasinTraining | None = None,
        **optimization: Unpack[OptimizationSettings],
    ) -> None:
        require_sensible("a", a)
        require_sensible("gamma", gamma)
        num_nodes = count_nodes(image_shape, backbone, nodes)
        super().__init__(
            attractors=block_patterns(num_classes, num_nodes, low=-a, high=a, block=block),
            image_shape=image_shape,
            dt=dt,
            steps=steps,
            eval_steps=eval_steps,
            integrator=integrator,
            closeness={
                "attractor_accuracy": AttractorAccuracy(),
                "perfect": AttractorAccuracy(threshold=1.0),
            },
            bound=_CLIP * a,
            num_realisations=1,
            backbone=backbone,
            nodes=nodes,
            recompute=recompute,
            basins=basins,
            **optimization,
        )
        self.save_settings("backbone", "basins")
        self.a = a
        self.beta = 1 / math.sqrt(num_nodes)
        self.gamma = nn.Parameter(torch.tensor(float(gamma)))
        self.coupling = make_coupling(coupling, self.attractors)

    @property
    def eigenvalue_bound(self) -> float:
        """8a²|γ|/β: the flow is stable at the attractors iff the real parts of A's eigenvalues are below."""
        return 8 * self.a**2 * abs(self.gamma.item()) / self.beta

    def field(self) -> DoubleWellField:
        with torch.autocast(self.device.type, enabled=False):
            return DoubleWellField(self.beta * self.coupling.matrix(), self.gamma.abs(), self.a)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        interval = self.coupling.constrain_interval
        last = self.trainer.is_last_batch or self.global_step == self.trainer.max_steps
        if last or self.global_step % interval == 0:
            self.keep_stable_()
            if interval > 1 and self.trainer.world_size > 1:
                # Eigenvalues computed on different processors may differ in the last bit.
                for parameter in self.coupling.parameters():
                    torch.distributed.broadcast(parameter.data, src=0)

    def keep_stable_(self) -> None:
        """Bring the eigenvalues of A to where the attractors are stable, flow and Euler map, in place.

        In the plane of λ that is the disc through the bound 8a²|γ|/β with radius 1/(Δt β); one per cent of
        the bound is kept as the slowest decay rate. With Δt ≥ 2/(8a²|γ|), where the wells alone are unstable
        under Euler, there is no such disc and nothing is changed.
        """
        bound, radius = self.eigenvalue_bound, 1 / (self.dt * self.beta)
        center, radius = bound - radius, radius - (1 - _BOUND_SHARE) * bound
        if abs(center) < radius:
            self.coupling.constrain_(center, radius)

    @torch.no_grad()
    def invert(self, final: Tensor, time: float, dt: float = 1e-3) -> Tensor:
        """Integrate the flow backwards in time, from states at ``time`` to the initial ones they came from.

        Runge-Kutta of fourth order on ẋ = −F(x). The attractors repel in reversed time, so errors of the
        state grow exponentially with time: use float64 (``model.double()``) and short times (3.2 for MNIST
        and 4.0 for Fashion-MNIST in the paper).

        Args:
            final: states at ``time``, shape (B, N).
            time: how far back to go, above 0.
            dt: step length, above 0.

        Returns:
            States at time 0, shape (B, N).

        Raises:
            SettingError: if ``time`` or ``dt`` is not above 0.
        """
        require(0 < time < math.inf, "time", time, "must be finite and above 0")
        require(0 < dt < math.inf, "dt", dt, "must be finite and above 0")
        count = max(1, round(time / dt))
        return integrate(reverse(self.field()), final, time / count, count, rk4)
