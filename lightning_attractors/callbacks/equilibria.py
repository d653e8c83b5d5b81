"""Certificates of equilibria as scalars, as the content of ``stability.json`` and as a picture."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Circle

from lightning_attractors.certificates import EquilibriumCertificate

# What a reader of stability.json should know of its verdicts.
EVIDENCE = (
    "eigenvalues: proved for the Jacobian in float64; Jacobian and equilibrium: by evaluations of the maps "
    "at random points, which is no proof"
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
    return {
        "stable": all(certificate.stable for certificate in certificates),
        "certified": sum(certificate.stable for certificate in certificates),
        "equilibria": len(certificates),
        "worst_abscissa": finite_or_none(max(spectrum.abscissa for spectrum in spectra)),
        "evidence": EVIDENCE,
        "condition_of_eigenvectors": finite_or_none(max(spectrum.condition for spectrum in spectra)),
        "attractors": [_entry(k, certificate) for k, certificate in enumerate(certificates)],
    }


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


def draw_spectra(certificates: list[EquilibriumCertificate]) -> Figure:
    """Eigenvalues in the complex plane: the flow beside the axis, the step map in the unit circle."""
    has_step = any(certificate.step is not None for certificate in certificates)
    figure = Figure(figsize=(10 if has_step else 5, 4.5), layout="constrained")
    axes = figure.subplots(1, 2 if has_step else 1, squeeze=False)[0]
    for k, certificate in enumerate(certificates):
        values = certificate.flow.spectrum.eigenvalues
        axes[0].scatter(values.real, values.imag, s=9, alpha=0.6, color=f"C{k % 10}", label=str(k))
        if certificate.step is not None:
            values = certificate.step.spectrum.eigenvalues
            axes[1].scatter(values.real, values.imag, s=9, alpha=0.6, color=f"C{k % 10}")
    axes[0].axvline(0, color="black", linewidth=1)
    axes[0].set(title="Flow: stable left of the axis", xlabel="real part", ylabel="imaginary part")
    if len(certificates) <= 10:
        axes[0].legend(title="attractor", fontsize="x-small", ncols=2)
    if has_step:
        axes[1].add_patch(Circle((0, 0), 1, fill=False, color="black"))
        axes[1].set_aspect("equal", adjustable="datalim")
        axes[1].set(title="Step map: stable inside the circle", xlabel="real part")
    return figure
