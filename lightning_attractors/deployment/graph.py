"""The graph of a model in evaluation: what depends on weights alone is formed once, and held as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lightning_attractors.certificates import GraphRadius, computes_as, l2_graph_radius, linf_graph_radius
from lightning_attractors.contracts import is_noisy
from lightning_attractors.dynamics.nmode import NMODELayer
from lightning_attractors.dynamics.nonexpansive import fixed_norms
from lightning_attractors.errors import SettingError, require
from lightning_attractors.models import NMODE, AttractorClassifier, NonexpansiveNet, evaluating

OUTPUTS = ("logits", "certified_radius")


class Graph(nn.Module):
    """What is exported of a model: images to logits, and to certified radii where tables are enough for them.

    Args:
        model: takes images (B, C, H, W) in [0, 1], gives logits (B, K).
        radius: takes images and their logits, gives radii (B,); None for logits alone.
    """

    def __init__(self, model: nn.Module, radius: GraphRadius | None) -> None:
        super().__init__()
        self.model, self.radius = model, radius

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, K), or these and the radii (B,), of images (B, C, H, W)."""
        logits: Tensor = self.model(images)
        return logits if self.radius is None else (logits, self.radius(images, logits))


@contextmanager
def traced(model: nn.Module, images: Tensor) -> Iterator[tuple[Graph, ExportedProgram]]:
    """A model's graph, as a module and as ``torch.export`` has traced it, for batches of any size.

    Within it the model is in evaluation mode, without gradients, and what its weights decide stays as it is.

    Args:
        model: any module that ``torch.export`` can trace; those of this package can all be.
        images: at least two, shape (B, C, H, W).

    Raises:
        SettingError: if the model has noise in evaluation.
    """
    with evaluating(model), torch.no_grad():
        cure = "model.eval_noise = False before, or training with --model.eval_noise false, takes it away"
        valid = f"must have no noise in evaluation, which a graph cannot draw as the model does: {cure}"
        require(not is_noisy(model), "export", type(model).__name__, valid)
        graph = Graph(model, radius_of(model, images))
        with _field_formed_once(model), fixed_norms(model):
            yield graph, torch.export.export(graph, (images,), dynamic_shapes=({0: Dim("batch")},))


def radius_of(model: nn.Module, images: Tensor) -> GraphRadius | None:
    """The radius of a model that tables are enough for; None where there is none, or it certifies nothing.

    Args:
        model: the model, in evaluation mode.
        images: some to ask on whether the model computes what is certified of it, shape (B, C, H, W).
    """
    if not isinstance(model, NonexpansiveNet | NMODE):
        return None
    try:
        model.certified_radii(images, model(images).argmax(dim=1))
        if isinstance(model, NonexpansiveNet):
            shape = (images.shape[1], images.shape[2], images.shape[3])
            return l2_graph_radius(model.layers, model.head, model.temperature, shape)
        if isinstance(model.layer, NMODELayer) and computes_as(model.backbone, nn.Flatten):
            return linf_graph_radius(model.layer, model.head)
    except SettingError:  # what cannot be certified can be exported nevertheless
        pass
    return None


@contextmanager
def _field_formed_once(model: nn.Module) -> Iterator[None]:
    """A model with attractors has one field, whose coupling takes a factorisation that no graph need hold."""
    if not isinstance(model, AttractorClassifier):
        yield
        return
    field = model.field()
    vars(model)["field"] = lambda: field
    try:
        yield
    finally:
        del vars(model)["field"]
