"""What a measurement leaves in a folder: tables, summaries and pictures, each whole or not there at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_attractors.figures import write_figure
from lightning_attractors.robustness.drawings import draw
from lightning_attractors.robustness.findings import Report
from lightning_attractors.robustness.report import AttackReport, CertificateReport
from lightning_attractors.robustness.smoothed import SmoothedReport
from lightning_attractors.robustness.summaries import versions
from lightning_attractors.writing import csv_table, write_atomically


def write_report(report: Report, folder: str | Path, about: Mapping[str, Any] | None = None) -> list[Path]:
    """Write everything there is into a folder.

    Of every attack ``<attack>.csv`` (accuracies per strength), ``<attack>_radii.csv`` (one row per image),
    ``<attack>.json`` (R and all that it depends on), and ``<attack>`` and ``<attack>_gallery`` as PNG and
    PDF; of the certificate ``certified``, and of the smoothed classifier ``smoothed``, as CSV, JSON, PNG and
    PDF.

    Args:
        report: of :func:`~lightning_attractors.robustness.measure`.
        folder: is made if it is not there.
        about: what else the summaries should say, of the classifier for instance; titles have its
            ``model`` and ``data``.

    Returns:
        The files, of pictures the PNG.
    """
    written = []
    for found in [report.certificate, report.smoothed, *report.attacks.values()]:
        if found is None:
            continue
        summary = found.summary(report.settings, {**(about or {}), "versions": versions()})
        written += write_result(found, Path(folder), summary, draw(found, about))
    return written


def write_result(
    found: AttackReport | CertificateReport | SmoothedReport,
    folder: Path,
    summary: Mapping[str, Any],
    figures: Mapping[str, Figure],
) -> list[Path]:
    """Write the tables, the summary and the pictures of one attack, or of a certificate, and give the files.

    Of pictures it gives the PNG.
    """
    contents: dict[str, str | bytes] = {f"{end}.csv": table for end, table in tables(found).items()}
    contents[".json"] = json.dumps(summary, indent=2) + "\n"
    for ending, content in contents.items():
        write_atomically(folder / f"{found.name}{ending}", content)
    for ending, figure in figures.items():
        write_figure(folder / f"{found.name}{ending}", figure)
    return [folder / f"{found.name}{end}" for end in (*contents, *(f"{ending}.png" for ending in figures))]


def tables(found: AttackReport | CertificateReport | SmoothedReport) -> dict[str, str]:
    """The CSV files, by how their names go on after the attack's."""
    if isinstance(found, CertificateReport):
        return {"": _certified_table(found)}
    if isinstance(found, SmoothedReport):
        return {"": _smoothed_table(found)}
    return {"": _curve_table(found), "_radii": _radii_table(found)}


def _curve_table(found: AttackReport) -> str:
    """One row per strength; the fit is of radii, which are |strengths|."""
    curve, fit = found.curve, found.fit
    nothing = [None] * len(curve.strengths)
    columns: dict[str, list[Any]] = {
        "strength": curve.strengths.tolist(),
        "accuracy": curve.accuracy.tolist(),
        "relative_accuracy": curve.relative.tolist(),
        "fit": fit(curve.strengths.abs()).tolist() if fit is not None and fit.fitted else nothing,
        "certified": nothing if curve.certified is None else curve.certified.tolist(),
    }
    return _table(columns)


def _radii_table(found: AttackReport) -> str:
    """One row per image: ``radius`` is inf and ``steps`` empty where the attack failed."""
    images = found.images
    columns = {
        "index": images.index.tolist(),
        "label": images.labels.tolist(),
        "confidence": images.confidence.tolist(),
        "correct": images.correct.int().tolist(),
        "radius": images.radii.tolist(),
        "steps": [None if steps < 0 else steps for steps in images.steps.tolist()],
        "certified_radius": [None if math.isnan(radius) else radius for radius in images.certified.tolist()],
    }
    return _table(columns)


def _certified_table(found: CertificateReport) -> str:
    """One row per radius."""
    curve = found.curve
    columns = {
        "radius": curve.strengths.tolist(),
        "certified_accuracy": curve.accuracy.tolist(),
        "relative_certified_accuracy": curve.relative.tolist(),
    }
    return _table(columns)


def _smoothed_table(found: SmoothedReport) -> str:
    """One row per image: ``predicted`` is −1 where the smoothed classifier abstains."""
    images = found.images
    columns = {
        "index": images.index.tolist(),
        "label": images.labels.tolist(),
        "predicted": images.classes.tolist(),
        "count": images.counts.tolist(),
        "p_lower": images.lower.tolist(),
        "radius": images.radii.tolist(),
        "correct": images.right.int().tolist(),
    }
    return _table(columns)


def _table(columns: Mapping[str, list[Any]]) -> str:
    return csv_table(list(columns), zip(*columns.values(), strict=True))
