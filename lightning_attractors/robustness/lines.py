"""A summary as numbers for loggers, and as a line for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_attractors.norms import NORMS

_SPLITS = {"val": "validation images", "test": "test images"}


def scalars(name: str, summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a summary, of an attack or a certificate, by what loggers call them."""
    keys = ("R", "uncertainty", "accuracy", "median_radius", "median_radius_all", "average_radius", "R2")
    values = {key: summary.get(key) for key in keys}
    for kind in ("accuracy_at", "certified_accuracy"):
        shares = summary.get(kind, {})
        # a slash would begin a group of its own in TensorBoard
        values |= {f"{kind}_{strength.replace('/', '_')}": value for strength, value in shares.items()}
    return {f"robustness/{name}/{key}": value for key, value in values.items() if value is not None}


def images_of(summary: Mapping[str, Any]) -> str:
    """Whose images a summary is of: test or validation images, where it says so."""
    return _SPLITS.get(str(summary.get("split")), "images")


def attack_of(summary: Mapping[str, Any]) -> str:
    """An attack's name, and the norm of its strengths and radii where there is one."""
    norm = summary.get("norm")
    return f"{summary['attack']} in {NORMS[norm]}" if norm else str(summary["attack"])


def verdict(summary: Mapping[str, Any]) -> str:
    """An attack's R, or why there is none and what would give one; what would make it count, too."""
    if not summary["fitted"]:
        return f"no R: {summary['reason']}; {summary['advice']}"
    result = f"R {summary['R']:.4g} ± {summary['uncertainty']:.1g}"
    steps = summary.get("steps", {})
    if steps.get("agrees_within_5_percent") is False:
        result += f", but step size × R in steps is {steps['R_times_step_size']:.4g}"
    return result if summary["counts"] else f"{result} (does not count yet: {summary['advice']})"


def without_fit(summary: Mapping[str, Any]) -> str:
    """An attack's figures that need no fit: accuracies at the usual strengths, and the median radius."""
    shares = ", ".join(f"{share:.4g} at {strength}" for strength, share in summary["accuracy_at"].items())
    median = summary["median_radius_all"]
    # of a sweep ρ is the first strength that was tried and changed the class
    most = "at most " if summary.get("mode") == "strengths" else ""
    half = "half of the images withstood all" if median is None else f"median radius {most}{median:.4g}"
    return f"accuracy {summary['accuracy']:.4g}, {shares}; {half}"


def certified_figures(summary: Mapping[str, Any]) -> str:
    """Of a certificate, the accuracies at the usual strengths, and the median radius."""
    shares = ", ".join(f"{share:.4g} at {at}" for at, share in summary["certified_accuracy"].items())
    median = summary["median_radius_all"]
    return f"accuracy {shares}; median radius {'infinite' if median is None else f'{median:.4g}'}"


def result_line(summary: Mapping[str, Any], seconds: float) -> str:
    """An attack's summary in one line, with the time that it took."""
    images = summary["images"]
    return (
        f"robustness  {attack_of(summary)}  {seconds:.1f} s  {images['all']} {images_of(summary)}, "
        f"{images['counted']} count  {without_fit(summary)}  {verdict(summary)}"
    )
