"""A classifier made of a vector field of one's own."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_attractors.dynamics.integrate import IntegratorName
from lightning_attractors.dynamics.planted import PlantedField, block_patterns, dual_basis, random_patterns
from lightning_attractors.errors import SettingError, one_line, require
from lightning_attractors.keywords import Unpack
from lightning_attractors.models.attractor import AttractorClassifier
from lightning_attractors.models.backbones import count_features
from lightning_attractors.models.base import OptimizationSettings

Attractors = Literal["blocks", "random"] | list[list[float]] | Tensor


class FieldClassifier(AttractorClassifier):
    """A classifier whose images flow along any vector field to the attractors of their classes.

    The field is changed so that the attractors φ_k, k = 1 … K, are equilibria. Of the right-hand side G that
    is given, what is integrated is::

        ẋ = F(x) = G(x) − Σ_k c_k(x) G(φ_k),  c(x) = x Φ⁺,

    where Φ has the attractors as its rows, so that c_j(φ_k) is 1 for j = k and else 0. F(φ_k) = 0 whatever
    G is and however it is trained; and F = G where G vanishes at all attractors already. The start x(0) is
    the image, or what a backbone makes of it; the class is that of the attractor which the state at the end
    overlaps most with. The attractors stay as they are.

    Unless ``attractors`` gives them, they are chosen before training: each class has a block of nodes of its
    own, as many as fit and those of class 0 first, at ``high``, and all others at ``low``. Choose your own
    where G has equilibria that are to be kept, or where it cannot rest at ``low`` and ``high``.

    Whether the attractors are stable is for :class:`~lightning_attractors.callbacks.StabilityCertificate` to
    say. There are no certificates of basins, which need
    :meth:`~lightning_attractors.dynamics.planted.CoupledField.pointwise`.

    A checkpoint of a model that was made in Python has the weights of the field, not the field:
    ``FieldClassifier.load_from_checkpoint(path, field=Wells())`` takes one that is made as it was before. The
    same is true of ``backbone``. A run of the command line keeps how both are made.

    Args:
        field: the right-hand side: takes states (B, N) to as many, each by itself.
        num_classes: number of classes K.
        image_shape: shape (C, H, W) of the images.
        attractors: ``blocks`` of nodes at ``high`` in a sea at ``low``, ``random`` halves of the nodes at
            ``high``, or your own: K lists of N numbers, or a tensor (K, N), that are linearly independent.
        low: the lower value.
        high: the higher value.
        dt: step length Δt, above 0.
        steps: integration steps while training, at least 1.
        eval_steps: integration steps otherwise; by default ``steps``.
        integrator: ``euler``, ``heun`` or ``rk4``.
        bound: states are clamped to [−bound, bound] after every step, if given.
        backbone: gives features, of any shape, of a batch of images; by default they are the C·H·W pixels.
        nodes: number of nodes N; a linear map, ``embedding``, leads to them from the features. By default
            each feature is a node.
        recompute: while training keep every √steps-th state alone, and compute the others once more for the
            gradient: memory goes with √steps, and a step takes up to a third longer.
        **optimization: the settings of :class:`~lightning_attractors.models.base.Classifier`.

    Attributes:
        right_hand_side: the field as it was given.

    Raises:
        SettingError: if a setting lies outside its range, or field and attractors do not fit.

    Example:
        >>> class Wells(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x - x**3
        >>> model = FieldClassifier(Wells(), num_classes=5, image_shape=(1, 7, 7))
        >>> model(torch.rand(3, 1, 7, 7)).shape
        torch.Size([3, 5])

        With attractors of one's own, in two nodes:

        >>> own = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
        >>> model = FieldClassifier(Wells(), num_classes=2, image_shape=(1, 1, 2), attractors=own)
        >>> model.vector_field(own).abs().max() < 1e-6
        tensor(True)
    """

    dual: Tensor

    def __init__(
        self,
        field: nn.Module,
        num_classes: int = 10,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        attractors: Attractors = "blocks",
        low: float = -1.0,
        high: float = 1.0,
        dt: float = 0.1,
        steps: int = 40,
        eval_steps: int | None = None,
        integrator: IntegratorName = "euler",
        bound: float | None = None,
        backbone: nn.Module | None = None,
        nodes: int | None = None,
        recompute: bool = False,
        **optimization: Unpack[OptimizationSettings],
    ) -> None:
        require(nodes is None or nodes >= 1, "nodes", nodes, "must be null or at least 1")
        count = nodes or count_features(backbone or nn.Flatten(), image_shape)
        patterns = _patterns(attractors, num_classes, count, low, high)
        dual = dual_basis(patterns)
        super().__init__(
            patterns,
            image_shape,
            dt,
            steps,
            eval_steps,
            integrator,
            bound=bound,
            backbone=backbone,
            nodes=nodes,
            recompute=recompute,
            **optimization,
        )
        self.save_settings("field", "backbone")
        self.hparams.setdefault("field", type(field).__name__)
        self.register_buffer("dual", dual, persistent=False)
        _check_field(field, patterns)
        self.right_hand_side = field

    def field(self) -> PlantedField:
        return PlantedField(self.right_hand_side, self.attractors, self.dual)


def _patterns(attractors: Attractors, num_classes: int, num_nodes: int, low: float, high: float) -> Tensor:
    """The attractors (K, N), float32."""
    if isinstance(attractors, str):
        kinds = {"blocks": block_patterns, "random": random_patterns}
        require(attractors in kinds, "attractors", attractors, f"must be one of {sorted(kinds)}, or numbers")
        return kinds[attractors](num_classes, num_nodes, low, high)
    valid = f"must be {num_classes} lists of {num_nodes} finite numbers, one for every class"
    try:
        patterns = torch.as_tensor(attractors, dtype=torch.float32).clone()
    except (TypeError, ValueError) as error:
        raise SettingError("attractors", f"{len(attractors)} lists", valid) from error
    fits = patterns.shape == (num_classes, num_nodes) and bool(patterns.isfinite().all())
    require(fits, "attractors", f"shape {tuple(patterns.shape)}", valid)
    return patterns


def _check_field(field: nn.Module, attractors: Tensor) -> None:
    """See that a field takes states to as many numbers."""
    made = f"must be the module: a checkpoint has its weights alone, so give it too: field={field}(...)"
    require(not isinstance(field, str), "field", field, made)
    name, shape = type(field).__name__, tuple(attractors.shape)
    valid = f"must take states of shape {shape} to as many finite numbers"
    try:
        with torch.no_grad():
            flow = field(attractors)
    except Exception as error:  # whatever it raises, it does not take them
        raise SettingError("field", name, f"{valid} ({one_line(error)})") from error
    found = tuple(flow.shape) if isinstance(flow, Tensor) else type(flow).__name__
    require(found == shape, "field", name, f"{valid}, not {found}")
    require(bool(flow.isfinite().all()), "field", name, valid)
