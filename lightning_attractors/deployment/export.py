"""Export of a model to a file that is checked against it before it is there."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_attractors.contracts import class_names_of
from lightning_attractors.deployment.formats import FORMATS, FormatName
from lightning_attractors.deployment.graph import OUTPUTS, Graph, traced
from lightning_attractors.errors import require
from lightning_attractors.norms import NormName
from lightning_attractors.writing import write_atomically

# Share of the largest logit by which a graph may be off: rounding, in other orders, magnified by a flow.
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Exported:
    """A file with the graph of a model.

    Attributes:
        path: the file.
        image_shape: shape (C, H, W) of images in the batches that it takes.
        num_classes: K, of the logits (B, K) that it gives.
        norm: that of ``certified_radius``, the second output, shape (B,); None where there is none.
        difference: the largest difference of a logit from the model's, on the images of the check.
        largest: the largest size of a logit there.
        images: how many these were.
        class_names: K names that are in the file, in the order of the logits, or none.
    """

    path: Path
    image_shape: tuple[int, ...]
    num_classes: int
    norm: NormName | None
    difference: float
    largest: float
    images: int
    class_names: tuple[str, ...] = ()

    def __str__(self) -> str:
        given = f"images (batch, {', '.join(map(str, self.image_shape))})"
        radius = "" if self.norm is None else f", certified_radius (batch,) in {self.norm}"
        off = f"off by at most {self.difference:.2g} on {self.images} random images"
        names = ", class_names" if self.class_names else ""
        gives = f"logits (batch, {self.num_classes}){radius}{names}"
        return f"{self.path}: {given} → {gives}; {off}, whose logits are up to {self.largest:.3g}"


def export_model(
    model: nn.Module, path: str | Path, image_shape: tuple[int, int, int], file_format: FormatName = "onnx"
) -> Exported:
    """Write the graph of a model's evaluation to a file, after it was run and compared with the model.

    The batch may have any size. Where the graph can certify, its second output is ``certified_radius``: see
    :mod:`~lightning_attractors.certificates.graph_radii`. A model's ``class_names``, one for each logit, are
    in the file under that name, a list in JSON: in ONNX in ``metadata_props``, in ``pt2`` an extra file, as
    ``torch.export.load(path, extra_files={"class_names": ""})`` reads it.

    Args:
        model: takes images (B, C, H, W) in [0, 1], gives logits (B, K); on the CPU.
        path: the file; written whole or not at all.
        image_shape: shape (C, H, W) of the images.
        file_format: ``onnx``, or ``pt2`` of ``torch.export``.

    Raises:
        SettingError: if the format is unknown, or lacks a package; the model has noise in evaluation; or the
            graph gives other logits than the model.
        OSError: naming the file, if it cannot be written.
    """
    known = ", ".join(FORMATS)
    require(file_format in FORMATS, "format", file_format, f"must be one of {known}")
    file = FORMATS[file_format]
    file.require_installed()
    images = torch.rand(16, *image_shape, generator=torch.Generator().manual_seed(0))
    images = images.to(next((weight.dtype for weight in model.parameters()), images.dtype))
    with _quiet_exporters(), traced(model, images[:2]) as (graph, program):
        outputs = OUTPUTS if graph.radius is not None else OUTPUTS[:1]
        batches = [images, images[:1]]
        logits = [graph.model(batch) for batch in batches]
        names = class_names_of(model)
        names = names if len(names) == logits[0].shape[1] else []
        content = file.write(program, outputs, names)
        run = file.read(content)
        found = [run(batch) for batch in batches]
    difference = max(_difference(given[0], expected) for given, expected in zip(found, logits, strict=True))
    largest = float(logits[0].abs().max())
    valid = f"must give the model's logits, which are up to {largest:.3g}"
    require(difference <= _TOLERANCE * max(1.0, largest), "export", f"off by {difference:.3g}", valid)
    for batch, expected, given in zip(batches, logits, found, strict=True):
        _require_radii(graph, batch, expected, given)
    write_atomically(Path(path), content)
    norm = None if graph.radius is None else graph.radius.norm
    count = logits[0].shape[1]
    return Exported(Path(path), image_shape, count, norm, difference, largest, len(images), tuple(names))


@contextmanager
def _quiet_exporters() -> Iterator[None]:
    """Without what exporters warn of, which is for those who write them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _require_radii(graph: Graph, images: Tensor, logits: Tensor, found: Sequence[Tensor]) -> None:
    """Refuse a graph whose logits differ by more than its radii allow for, or that gives other radii."""
    if graph.radius is None:
        return
    excess = graph.radius.excess(images, logits, found[0])
    valid = "must differ from the model's no more than rounding may, for certified radii"
    require(excess <= 0, "export", f"margins off by {excess:.3g} more", valid)
    radii = graph.radius(images, found[0])
    same = torch.allclose(found[1], radii, rtol=1e-4, atol=1e-7)
    require(same, "export", "certified_radius", "must be as it is computed here")


def _difference(found: Tensor, expected: Tensor) -> float:
    same = found.shape == expected.shape
    require(same, "export", f"logits of shape {tuple(found.shape)}", f"must be of {tuple(expected.shape)}")
    require(bool(found.isfinite().all()), "export", "logits", "must be finite")
    return float((found - expected).abs().max())
