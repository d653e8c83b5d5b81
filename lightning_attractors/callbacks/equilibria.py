"""Certificates of equilibria as scalars, as the content of ``stability.json`` and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch

from lightning_attractors.certificates import EquilibriumCertificate, Spectrum
from lightning_attractors.figures import ATTACK, FIT, PAGE, SEQUENCE, add_caption, in_lines, in_style

_UNSTABLE = to_rgba(ATTACK, 0.12)
_NAME = 1.0  # inches for one in the legend
_OF_FLOW = (
    "A dot is an eigenvalue λ of the Jacobian (the matrix of derivatives) of F at an attractor. A small "
    "deviation from the attractor along the eigenvector grows by the factor exp(λt) in a time t. It dies out "
    "if the real part of λ is below 0: left of the line."
)
_OF_BOTH = (
    "A dot is an eigenvalue λ of the Jacobian (the matrix of derivatives) at an attractor: of F on the left, "
    "of the step from x(t) to x(t + Δt) on the right. A small deviation from the attractor along the "
    "eigenvector grows by the factor exp(λt) in a time t (left), and by λ in a step (right). It dies out if "
    "the real part of λ is below 0, left of the line, and, in steps, if |λ| is below 1, inside the circle."
)
_OF_CIRCLES = "Of many nodes eigenvalues are not computed: a circle is proved to hold all of them."
# What a reader of stability.json should know of its verdicts.
EVIDENCE = (
    "eigenvalues: proved for the Jacobian in float64; Jacobian and equilibrium: by evaluations of the maps "
    "at random points, which is no proof"
)
_EVIDENCE_OF_BOUNDS = (
    "; of many nodes, where eigenvalues are not computed, spectral_abscissa, spectral_radius and return_time "
    "are upper bounds, by a disc that is proved to hold all eigenvalues, and condition_of_eigenvectors is by "
    "how much faster than the Jacobian that disc may move"
)


def spectral_scalars(certificates: list[EquilibriumCertificate]) -> dict[str, float]:
    """The worst figures over all equilibria, under the names of their curves."""
    flows = [certificate.flow for certificate in certificates]
    scalars = {
        "stability/certified": sum(certificate.stable for certificate in certificates) / len(certificates),
        "stability/abscissa": max(flow.spectrum.abscissa for flow in flows),
        "stability/residual": max(flow.residual for flow in flows),
        "stability/condition": max(flow.spectrum.condition for flow in flows),
    }
    radii = [certificate.step.spectrum.radius for certificate in certificates if certificate.step is not None]
    return {**scalars, "stability/spectral_radius": max(radii)} if radii else scalars


def summarize(certificates: list[EquilibriumCertificate]) -> dict[str, Any]:
    """The content of ``stability.json``: the verdict, the worst figures and one entry per equilibrium.

    Figures that are not finite (an error bound that could not be established) are written as null.
    """
    spectra = [certificate.flow.spectrum for certificate in certificates]
    steps = [certificate.step.spectrum for certificate in certificates if certificate.step is not None]
    has_bounds = any(spectrum.is_bound for spectrum in spectra + steps)
    return {
        "stable": all(certificate.stable for certificate in certificates),
        "certified": sum(certificate.stable for certificate in certificates),
        "equilibria": len(certificates),
        "worst_abscissa": finite_or_none(max(spectrum.abscissa for spectrum in spectra)),
        "evidence": EVIDENCE + (_EVIDENCE_OF_BOUNDS if has_bounds else ""),
        "condition_of_eigenvectors": finite_or_none(max(spectrum.condition for spectrum in spectra)),
        "attractors": [_entry(k, certificate) for k, certificate in enumerate(certificates)],
    }


def verdict(certificates: Sequence[EquilibriumCertificate]) -> str:
    """How many equilibria are certified stable, at least one given, and the worst figures, in words."""
    stable = sum(certificate.stable for certificate in certificates)
    worst = max((certificate.flow.spectrum for certificate in certificates), key=lambda flow: flow.abscissa)
    figure = f"{_at_most(worst)}{worst.abscissa:+.4g} ± {worst.error_bound:.1g}"
    text = f"{stable}/{len(certificates)}, worst eigenvalue {figure}"
    steps = [certificate.step.spectrum for certificate in certificates if certificate.step is not None]
    if not steps:
        return text
    widest = max(steps, key=lambda step: step.radius)
    return f"{text}, step map radius {_at_most(widest)}{widest.radius:.4g}"


def _at_most(spectrum: Spectrum) -> str:
    return "at most " if spectrum.is_bound else ""


def _entry(index: int, certificate: EquilibriumCertificate) -> dict[str, Any]:
    flow, step = certificate.flow, certificate.step
    entry = {
        "index": index,
        "stable": certificate.stable,
        "is_equilibrium": flow.is_fixed,
        "residual": finite_or_none(flow.residual),
        "distance": finite_or_none(flow.distance),
        "flow_stable": certificate.flow_is_stable,
        "spectral_abscissa": finite_or_none(flow.spectrum.abscissa),
        "spectral_abscissa_error_bound": finite_or_none(flow.spectrum.error_bound),
        "return_time": finite_or_none(certificate.return_time),
    }
    if step is None:
        return entry
    return entry | {
        "step_map_stable": certificate.step_is_stable,
        "step_map_residual": finite_or_none(step.residual),
        "spectral_radius": finite_or_none(step.spectrum.radius),
        "spectral_radius_error_bound": finite_or_none(step.spectrum.error_bound),
    }


def finite_or_none(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None


@in_style
def draw_spectra(certificates: list[EquilibriumCertificate], names: Sequence[str] = ()) -> Figure:
    """Eigenvalues in the complex plane with the discs that they are proved to be in, per attractor.

    Left those of the flow's Jacobian, beside the imaginary axis; right those of the step map's, where there
    is one, in the unit circle.

    Args:
        certificates: of K attractors, at least one.
        names: of their classes; they go by number where there is not one name for each.
    """
    maps: list[list[Spectrum]] = [[certificate.flow.spectrum for certificate in certificates]]
    steps = [certificate.step.spectrum for certificate in certificates if certificate.step is not None]
    maps += [steps] if steps else []
    figure = Figure(figsize=(PAGE if steps else 0.7 * PAGE, 3.2))
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    for axis, spectra in zip(axes, maps, strict=True):
        for label, spectrum, color in _told_apart(spectra, names):
            if spectrum.is_bound:
                _draw_circle(axis, spectrum, color, label)
                continue
            values = spectrum.eigenvalues.numpy()
            axis.scatter(values.real, values.imag, s=5, color=color, alpha=0.8, linewidths=0, label=label)
            _draw_discs(axis, spectrum, color)
        axis.set_xlabel(r"real part of $\lambda$")
    _mark_half_plane(axes[0])
    axes[0].set_ylabel(r"imaginary part of $\lambda$")
    axes[0].set_title("flow $dx/dt = F(x)$:\nstable left of the line")
    if steps:
        _mark_circle(axes[1])
        axes[1].set_title("one step of length $\\Delta t$:\nstable inside the circle")
    handles, labels = axes[0].get_legend_handles_labels()
    handles, labels = [*handles, Patch(color=_UNSTABLE, linewidth=0)], [*labels, "unstable"]
    title = "eigenvalues at\nthe attractor of"
    figure.legend(handles, labels, title=title, loc="outside right upper", markerscale=2)
    add_caption(figure, _caption(maps))
    return figure


def _caption(maps: list[list[Spectrum]]) -> str:
    """What the dots are, what follows from where they are, and how far off they may be."""
    computed = [[spectrum for spectrum in spectra if not spectrum.is_bound] for spectra in maps]
    said = [_OF_FLOW if len(maps) == 1 else _OF_BOTH]
    said += [_discs([spectra for spectra in computed if spectra])] if any(computed) else []
    said += [_OF_CIRCLES] if any(spectrum.is_bound for spectra in maps for spectrum in spectra) else []
    return " ".join(said)


def _told_apart(spectra: list[Spectrum], names: Sequence[str]) -> list[tuple[str, Spectrum, str]]:
    """Labels, spectra and colours; those with the same Jacobian have one between them, as do too many."""
    first = spectra[0]
    if len(spectra) > 1 and all(_alike(first, other) for other in spectra):
        worst = max(spectra, key=lambda spectrum: spectrum.error_bound)
        return [(f"all {len(spectra)} classes, alike", worst, SEQUENCE[0])]
    if len(spectra) > len(SEQUENCE):
        labels = [
            f"all {len(spectra)}",
            *["_"] * (len(spectra) - 1),
        ]  # a legend leaves out what begins with _
        return [(label, spectrum, SEQUENCE[0]) for label, spectrum in zip(labels, spectra, strict=True)]
    if len(names) != len(spectra):
        names = [str(k) for k in range(len(spectra))]
    labels = [in_lines(name, _NAME, 7).lstrip("_") for name in names]
    return list(zip(labels, spectra, SEQUENCE, strict=False))


def _alike(first: Spectrum, other: Spectrum) -> bool:
    return first.reach == other.reach and torch.equal(first.eigenvalues, other.eigenvalues)


def _draw_circle(axis: Any, spectrum: Spectrum, color: str, label: str) -> None:
    """The circle that holds all eigenvalues, its error included."""
    center, size = spectrum.eigenvalues[0], spectrum.reach + spectrum.error_bound
    turn = torch.linspace(0, 2 * math.pi, 361, dtype=torch.float64)
    axis.plot(center.real + size * turn.cos(), center.imag + size * turn.sin(), color=color, label=label)


def _draw_discs(axis: Any, spectrum: Spectrum, color: str) -> None:
    values = spectrum.eigenvalues
    if not math.isfinite(spectrum.error_bound) or not bool(values.isfinite().all()):
        return
    sizes = [2 * spectrum.error_bound] * len(values)
    centres = torch.stack([values.real, values.imag], dim=1).numpy()
    discs = EllipseCollection(
        sizes, sizes, [0.0] * len(values), units="xy", offsets=centres, transOffset=axis.transData
    )
    discs.set(facecolor=color, alpha=0.15, linewidth=0)
    axis.add_collection(discs, autolim=False)


def _discs(maps: list[list[Spectrum]]) -> str:
    """How large the discs are, as most are too small to be seen."""
    largest = [max(spectrum.error_bound for spectrum in spectra) for spectra in maps]
    if not all(math.isfinite(bound) for bound in largest):
        return "No error could be certified for some of them."
    exponents = [math.floor(math.log10(bound)) + 1 if bound > 0 else 0 for bound in largest]
    radii = " and ".join(f"$10^{{{exponent}}}$" for exponent in exponents)
    return f"The discs around the dots are their error, which is certified to be below {radii}."


def _mark_half_plane(axis: Any) -> None:
    """The imaginary axis, and what is right of it: there a flow runs away."""
    low, high = axis.get_xlim()
    high = max(high, 0.05 * (high - low))
    axis.set_xlim(low, high)
    axis.axvline(0, color=FIT, linewidth=0.8)
    axis.axvspan(0, high, color=_UNSTABLE, linewidth=0)


def _mark_circle(axis: Any) -> None:
    """The unit circle, and what is outside: there the steps grow."""
    axis.set_facecolor(_UNSTABLE)
    axis.add_patch(Circle((0, 0), 1, facecolor="white", edgecolor=FIT, linewidth=0.8, zorder=0))
    axis.set_aspect("equal", adjustable="datalim")
