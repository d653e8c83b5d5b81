"""What a robustness curve leaves behind: tables, a summary and pictures."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_attractors.norms import NORMS, NormName
from lightning_attractors.robustness.logistic import LogisticFit
from lightning_attractors.robustness.records import Curve, Records
from lightning_attractors.writing import csv_table


def curve_table(found: Curve, fit: LogisticFit | None) -> str:
    """One row per strength; the fit is of radii, which are |strengths|."""
    fitted = fit(found.strengths.abs()).tolist() if fit is not None and fit.fitted else None
    rows = zip(
        found.strengths.tolist(),
        found.accuracy.tolist(),
        found.relative.tolist(),
        fitted or [None] * len(found.strengths),
        [None] * len(found.strengths) if found.certified is None else found.certified.tolist(),
        strict=True,
    )
    return csv_table(["strength", "accuracy", "relative_accuracy", "fit", "certified"], rows)


def radii_table(records: Records) -> str:
    """One row per image: ``radius`` is inf and ``steps`` empty where the attack failed."""
    rows = zip(
        records.index.tolist(),
        records.labels.tolist(),
        records.confidence.tolist(),
        records.correct.int().tolist(),
        records.radii.tolist(),
        [None if steps < 0 else steps for steps in records.steps.tolist()],
        [None if math.isnan(radius) else radius for radius in records.certified.tolist()],
        strict=True,
    )
    header = ["index", "label", "confidence", "correct", "radius", "steps", "certified_radius"]
    return csv_table(header, rows)


def fit_summary(fit: LogisticFit | None, reason: str) -> dict[str, Any]:
    """R with its uncertainty and the rules it counts by; no R, but the reason, where there is no fit."""
    if fit is None or not fit.fitted:
        return {"R": None, "uncertainty": None, "fitted": False, "reason": reason, "counts": False}
    values = asdict(fit)
    values.pop("reason")
    rules = {"more_than_500_images": fit.enough_images, "R2_at_least_0.95": fit.good_fit}
    return {**values, "fitted": True, "reason": None, "rules": rules, "counts": fit.counts}


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("lightning-attractors", "lightning", "torch", "torchattacks")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def json_ready(value: Any) -> Any:
    """The value with null for what JSON has no number for, and lists for tuples."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def draw_curve(
    name: str, found: Curve, fit: LogisticFit | None, confidence: float, counted: int, norm: NormName
) -> Figure:
    """Accuracies against strength, the fit with R, and the certified curve, in the norm."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    strengths, order = found.strengths.sort()
    x = strengths.numpy()
    label = f"{counted} images of confidence ≥ {confidence:g}"
    axis.plot(x, found.relative[order].numpy(), color="C0", label=label)
    axis.plot(x, found.accuracy[order].numpy(), color="C0", linewidth=0.8, linestyle=":", label="all images")
    if fit is not None and fit.fitted:
        signs = sorted(set(strengths.sign().tolist()) - {0.0}, reverse=True)
        # A radius is the smallest |ε| of either sign, which is less than what one sign alone would give
        label = "generalised logistic" + (", either sign" if len(signs) > 1 else "")
        axis.plot(x, fit(strengths.abs()).numpy(), color="C3", linestyle="--", label=label)
        label = f"R = {fit.R:.4g} ± {fit.uncertainty:.1g}" + ("" if fit.counts else " (does not count)")
        for number, sign in enumerate(signs):
            axis.axvline(sign * fit.R, color="C3", linewidth=0.8, label=None if number else label)
    if found.certified is not None:
        axis.plot(x, found.certified[order].numpy(), color="C2", label=f"certified in {NORMS[norm]}")
    axis.set(title=name, xlabel="strength ε", ylabel="accuracy", ylim=(-0.02, 1.02))
    axis.legend(fontsize="small")
    return figure


Example = tuple[int, Tensor, Tensor, str, str]


def draw_gallery(examples: Sequence[Example]) -> Figure:
    """The image, the change and the attacked image, with what the model says of the two.

    Args:
        examples: index, image and attacked image (C, H, W), and the titles of both.
    """
    figure = Figure(figsize=(6.5, 2.3 * len(examples)), layout="constrained")
    axes = figure.subplots(len(examples), 3, squeeze=False)
    for row, (index, image, attacked, before, after) in zip(axes, examples, strict=True):
        change = attacked - image
        largest = float(change.abs().max())
        middle = 0.5 + 0.5 * change / max(largest, 1e-12)
        titles = (f"{index}: {before}", f"change, ±{largest:.3g}", after)
        for axis, picture, title in zip(row, (image, middle, attacked), titles, strict=True):
            axis.imshow(_plane(picture), cmap="gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize="small")
            axis.set(xticks=[], yticks=[])
    return figure


def _plane(image: Tensor) -> Any:
    """Pixels (H, W, 3) of a colour image, or (H, W), the mean of the channels."""
    image = image.float().clamp(0, 1)
    return image.permute(1, 2, 0).numpy() if len(image) == 3 else image.mean(dim=0).numpy()


def titles(probabilities: Tensor) -> list[str]:
    """Class and confidence of every row (B, K)."""
    confidence, classes = probabilities.max(dim=1)
    return [f"class {k} at {c:.2f}" for k, c in zip(classes.tolist(), confidence.tolist(), strict=True)]


def grid(radii: Tensor) -> list[float]:
    """Strengths from 0 to the largest finite radius, or to 1 without one above 0, 101 of them."""
    finite = radii[radii.isfinite()]
    largest = float(finite.max()) if len(finite) else 0.0
    points: list[float] = torch.linspace(0, largest or 1.0, 101, dtype=torch.float64).tolist()
    return points
