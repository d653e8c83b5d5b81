"""Models as files that run without this package: ``torch.export`` and ONNX, checked against the model."""

from lightning_attractors.deployment.export import Exported, export_model
from lightning_attractors.deployment.formats import FORMATS, FormatName
from lightning_attractors.deployment.graph import Graph, traced

__all__ = ["FORMATS", "Exported", "FormatName", "Graph", "export_model", "traced"]
