"""CVFR: the continuous-variable firing-rate network, or continuous Hopfield network, as a classifier."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_attractors.dynamics.integrate import IntegratorName
from lightning_attractors.dynamics.planted import (
    CouplingName,
    DampedNoise,
    DampingName,
    FiringRateField,
    Gain,
    HillGain,
    check_damping,
    damping_scale,
    make_coupling,
)
from lightning_attractors.errors import require, require_sensible
from lightning_attractors.keywords import Unpack
from lightning_attractors.metrics import DistanceAccuracy
from lightning_attractors.models.attractor import AttractorClassifier
from lightning_attractors.models.backbones import count_nodes
from lightning_attractors.models.base import OptimizationSettings
from lightning_attractors.models.basin_training import BasinTraining
from lightning_attractors.models.noise_stream import NoiseStream
from lightning_attractors.models.pattern_digits import Patterns
from lightning_attractors.models.planting import coupling_scale, plant
from lightning_attractors.random import keyed_generator


class CVFR(AttractorClassifier):
    r"""ẋ = −x + β A f(x) + σ d(x) η(t), with one planted attractor per class (Chicchi et al., 2024).

    x are synaptic currents and f(x) firing rates; the image, or what a backbone makes of it, is the initial
    state. A has ψ⁽ᵏ⁾ = f(x̄⁽ᵏ⁾) as eigenvectors with eigenvalue λ, and every x̄ᵢ solves x = βλ f(x), β = 1/√N,
    so x̄⁽ᵏ⁾ is an equilibrium exactly. For the Hill gain f(x) = x²/(c + x²) these values are 0 and
    x± = (βλ ± √(β²λ² − 4c))/2. Stability is not imposed; training brings it about and
    ``StabilityCertificate`` checks it.

    With σ > 0 the equation is a stochastic one, integrated by Euler–Maruyama. The noise is
    :class:`~lightning_attractors.dynamics.planted.DampedNoise`, silent at the attractors, in the form that
    ``damping`` names. While training, validating and testing it is drawn for every image on its own, from a
    generator keyed by the seed, the rank and the step or batch; metrics are means over ``n_realisations``.
    ``forward`` of an evaluated model, the mean of the logits over ``n_realisations``, is one fixed
    function of the image: there all images meet the same realisations.

    Args:
        num_classes: number of classes K.
        image_shape: shape (C, H, W) of the images.
        coupling: ``spectral`` (A = Ψ Λ Ψ⁻¹, as published) or ``projected`` (A = λP + M (I − P), no solve).
        eigenvalue: planted eigenvalue λ > 0, or one λ_k per class; by default 8√N/7, so that βλ = 8/7.
        c: constant of the Hill gain, above 0 and below (βλ)²/4.
        gain: another gain f in its place; ``c`` is then without meaning.
        patterns: ``random`` (half of the nodes at the largest fixed point, half at 0), ``blocks`` (one block
            of nodes at it), or patterns of your own: one image file per class, black to white for the
            ascending fixed points (0, x₋, x₊), where nodes are pixels, or a tensor (K, N) of their places
            0, 1, 2.
        block: nodes of each class's block, for ``blocks``; by default as many as fit.
        sigma: amplitude σ of the noise, at least 0.
        damping: form of d: ``saturating``, near 1 away from all attractors however many they are, or
            ``published``, which falls exponentially with their number inside their hull.
        n_realisations: realisations of the noise that an evaluation averages over, where there is noise, at
            least 1.
        eval_noise: whether there is noise in evaluation too.
        seed: seed of the noise, at least 0.
        distance_threshold: largest distance of a final state from its attractor that ``distance_accuracy``
            counts, as a fraction of the smallest distance between two attractors; above 0, at most ½.
        dt: step length Δt, above 0.
        steps: integration steps while training, at least 1.
        eval_steps: integration steps otherwise; by default ``steps``.
        integrator: ``euler`` (as published) or, without noise, ``heun`` or ``rk4``.
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
        >>> model = CVFR(num_classes=3, image_shape=(1, 7, 7), sigma=0.1)
        >>> model(torch.rand(5, 1, 7, 7)).shape
        torch.Size([5, 3])
    """

    # Accuracies reach their ceiling long before the last trajectories have settled.
    monitor = "val/loss"
    monitor_mode = "min"
    observable_label = "$f(x_i(t))$"

    def __init__(
        self,
        num_classes: int = 10,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        coupling: CouplingName = "spectral",
        eigenvalue: float | list[float] | None = None,
        c: float = 0.1,
        gain: Gain | None = None,
        patterns: Patterns = "random",
        block: int | None = None,
        sigma: float = 0.0,
        damping: DampingName = "saturating",
        n_realisations: int = 1,
        eval_noise: bool = True,
        seed: int = 0,
        distance_threshold: float = 0.1,
        dt: float = 0.2,
        steps: int = 40,
        eval_steps: int | None = None,
        integrator: IntegratorName = "euler",
        backbone: nn.Module | None = None,
        nodes: int | None = None,
        recompute: bool = False,
        basins: BasinTraining | None = None,
        **optimization: Unpack[OptimizationSettings],
    ) -> None:
        require(0 <= sigma < math.inf, "sigma", sigma, "must be finite and at least 0")
        if sigma > 0:
            require_sensible("sigma", sigma)
        check_damping(damping)
        require(n_realisations >= 1, "n_realisations", n_realisations, "must be at least 1")
        require(seed >= 0, "seed", seed, "must be at least 0")
        require(
            sigma == 0 or integrator == "euler",
            "integrator",
            integrator,
            "must be euler where sigma is above 0",
        )
        require(
            0 < distance_threshold <= 0.5,
            "distance_threshold",
            distance_threshold,
            "must be above 0, at most 0.5",
        )
        gain = HillGain(c) if gain is None else gain
        num_nodes = count_nodes(image_shape, backbone, nodes)
        picture_shape = image_shape if backbone is None and nodes is None else None
        attractors, rates, eigenvalues = plant(
            gain, eigenvalue, patterns, num_classes, num_nodes, picture_shape, block
        )
        closest = float(torch.nn.functional.pdist(attractors).min())
        super().__init__(
            attractors=attractors.float(),
            image_shape=image_shape,
            dt=dt,
            steps=steps,
            eval_steps=eval_steps,
            integrator=integrator,
            closeness={"distance_accuracy": DistanceAccuracy(distance_threshold * closest)},
            bound=None,
            num_realisations=n_realisations if sigma > 0 and eval_noise else 1,
            backbone=backbone,
            nodes=nodes,
            recompute=recompute,
            basins=basins,
            **optimization,
        )
        self.save_settings(
            "backbone", "basins", ignore=("gain", "patterns") if isinstance(patterns, Tensor) else ("gain",)
        )
        self.gain = gain
        self.beta = coupling_scale(num_nodes)
        self.sigma = sigma
        self.damping: DampingName = damping
        self.noise_scale = damping_scale(self.attractors)
        self.eval_noise = eval_noise
        self.seed = seed
        self.coupling = make_coupling(coupling, rates.float(), eigenvalues.float())

    @property
    def is_noisy(self) -> bool:
        """Whether there is noise in the present mode, training or evaluation."""
        return self.sigma > 0 and (self.training or self.eval_noise)

    def field(self) -> FiringRateField:
        with torch.autocast(self.device.type, enabled=False):
            return FiringRateField(self.beta * self.coupling.matrix(), self.gain)

    def noise(self, stream: NoiseStream, *key: int) -> DampedNoise | None:
        if not self.is_noisy:
            return None
        # In forward all images meet the same ξ(t), so that the logits of an image depend on nothing else.
        shared = stream is NoiseStream.FORWARD and not self.training
        rank = 0 if shared else self.global_rank
        generator = keyed_generator(self.device, self.seed, rank, stream, *key)
        return DampedNoise(self.attractors, self.sigma, generator, self.noise_scale, shared, self.damping)

    def observable(self, states: Tensor) -> Tensor:
        """The firing rates f(x) of states of any shape, which is what pictures show."""
        return self.gain(states)
