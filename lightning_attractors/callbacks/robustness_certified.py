"""What a module's own certificate says of the images, before any attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_attractors.callbacks.robustness_files import grid
from lightning_attractors.certificates import certified_accuracy
from lightning_attractors.certificates.rounding import sums_in_float32
from lightning_attractors.errors import SettingError, require
from lightning_attractors.norms import NORMS, NormName
from lightning_attractors.robustness.records import Clean
from lightning_attractors.writing import csv_table

# What its files are called, where those of attacks have the attacks' names.
FILES = "certified"


def certified_norm(module: L.LightningModule) -> NormName:
    """The norm of a module's certified radii, its ``certified_norm``; L∞ if it does not say.

    Raises:
        SettingError: if it is unknown.
    """
    norm: Any = getattr(module, "certified_norm", "linf")
    require(isinstance(norm, str) and norm in NORMS, "certified_norm", norm, "must be linf or l2")
    known: NormName = norm
    return known


def certified_radii(
    trainer: L.Trainer, module: L.LightningModule, images: Tensor, labels: Tensor
) -> tuple[Tensor, str]:
    """Radii (B,), float64, on the CPU; nan, and why, where the module has none that hold.

    Raises:
        SettingError: if they are not one number for every image.
    """
    unknown = torch.full((len(labels),), torch.nan, dtype=torch.float64)
    certify: Any = getattr(module, "certified_radii", None)
    if certify is None:
        return unknown, ""
    if trainer.precision not in ("32-true", "64-true"):
        return unknown, f"not in precision {trainer.precision}"
    if not sums_in_float32(images.device):
        return unknown, "not with matrix products or convolutions in TF32 or bfloat16: see torch.backends"
    try:
        radii: Tensor = certify(images, labels)
    except SettingError as error:
        return unknown, str(error)
    shape = tuple(getattr(radii, "shape", ()))
    valid = f"must give radii of shape {tuple(labels.shape)}, none of them nan"
    require(shape == labels.shape and not radii.isnan().any(), "certified_radii", shape, valid)
    return radii.detach().double().cpu(), ""


@dataclass(frozen=True)
class CertifiedCurve:
    """Shares of images that are classified correctly, and certified to stay so, each (S,), float64.

    Attributes:
        radii: ε, ascending.
        accuracy: the share of all images.
        relative: the share of the images that count; nan without any.
    """

    radii: Tensor
    accuracy: Tensor
    relative: Tensor


def certified_curve(clean: Clean, confidence: float) -> CertifiedCurve:
    """The curve up to the largest radius of a correct image, of images with a certificate, at least one."""
    strengths = grid(clean.certified[clean.correct])
    counts = clean.confident(confidence)
    relative = torch.full((len(strengths),), torch.nan, dtype=torch.float64)
    if bool(counts.any()):
        relative = certified_accuracy(clean.certified[counts], clean.correct[counts], strengths)
    radii = torch.tensor(strengths, dtype=torch.float64)
    return CertifiedCurve(radii, certified_accuracy(clean.certified, clean.correct, strengths), relative)


def certified_summary(clean: Clean, norm: NormName, confidence: float) -> dict[str, Any]:
    """The certificate in numbers: ``average_radius`` is of all images, those that are wrong with 0."""
    counts = clean.confident(confidence)
    radii = torch.where(clean.correct, clean.certified, 0.0)
    return {
        "norm": norm,
        "accuracy": float(clean.correct.double().mean()),
        "median_radius": float(radii[counts].median()) if bool(counts.any()) else None,
        "average_radius": float(radii.mean()),
        "images": {
            "all": len(clean),
            "correct": int(clean.correct.sum()),
            "counted": int(counts.sum()),
            "certified": int((radii > 0).sum()),
        },
    }


def certified_table(found: CertifiedCurve) -> str:
    """One row per radius."""
    rows = zip(found.radii.tolist(), found.accuracy.tolist(), found.relative.tolist(), strict=True)
    return csv_table(["radius", "certified_accuracy", "relative_certified_accuracy"], rows)


def draw_certified(found: CertifiedCurve, norm: NormName, confidence: float, counted: int) -> Figure:
    """Certified accuracies against the radius."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    x = found.radii.numpy()
    label = f"{counted} images of confidence ≥ {confidence:g}"
    axis.plot(x, found.relative.numpy(), color="C2", label=label)
    axis.plot(x, found.accuracy.numpy(), color="C2", linewidth=0.8, linestyle=":", label="all images")
    axis.set(title=FILES, xlabel=f"{NORMS[norm]} radius ε", ylabel="certified accuracy")
    axis.set(ylim=(-0.02, 1.02))
    axis.legend(fontsize="small")
    return figure
