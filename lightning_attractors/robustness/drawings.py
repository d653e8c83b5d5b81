"""Pictures of what a measurement has found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from lightning_attractors.norms import NORMS, NormName
from lightning_attractors.robustness.images import Example
from lightning_attractors.robustness.logistic import LogisticFit
from lightning_attractors.robustness.report import CERTIFICATE, AttackReport, CertificateReport, Curve
from lightning_attractors.robustness.smoothed import SMOOTHED, SmoothedReport

_FEW = 20


def draw(found: AttackReport | CertificateReport | SmoothedReport) -> dict[str, Figure]:
    """The pictures of an attack, or of a certificate, by how their names go on after its own."""
    if isinstance(found, CertificateReport):
        counted = int(found.images.confident(found.confidence).sum())
        return {"": draw_certificate(found.curve, found.norm, found.confidence, counted)}
    if isinstance(found, SmoothedReport):
        return {"": draw_smoothed(found)}
    counted = int(found.counts.sum())
    curve = draw_curve(found.name, found.curve, found.fit, found.confidence, counted, found.norm)
    if found.smoothed is not None and found.trial.arguments.get("norm") in ("l2", "L2"):
        _plot_smoothed(curve.axes[0], found.smoothed, found.curve.strengths.abs().sort().values)
    return {"": curve, **({"_gallery": draw_gallery(found.examples)} if found.examples else {})}


def draw_curve(
    name: str, found: Curve, fit: LogisticFit | None, confidence: float, counted: int, norm: NormName
) -> Figure:
    """Accuracies against strength, the fit with R, and the certified curve, in the norm."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    strengths, order = found.strengths.sort()
    x = strengths.numpy()
    _plot_accuracies(axis, x, found.relative[order], found.accuracy[order], "C0", confidence, counted)
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


def draw_certificate(found: Curve, norm: NormName, confidence: float, counted: int) -> Figure:
    """Certified accuracies against the radius."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    _plot_accuracies(axis, found.strengths.numpy(), found.relative, found.accuracy, "C2", confidence, counted)
    axis.set(title=CERTIFICATE, xlabel=f"{NORMS[norm]} radius ε", ylabel="certified accuracy")
    axis.set(ylim=(-0.02, 1.02))
    axis.legend(fontsize="small")
    return figure


def draw_smoothed(found: SmoothedReport) -> Figure:
    """The smoothed classifier's certified accuracy against the radius, and that of the classifier itself."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis, radii = figure.subplots(), found.strengths
    itself = found.itself(radii)
    if itself is not None:
        axis.plot(radii.numpy(), itself.numpy(), color="C2", label="certified of the classifier itself")
    _plot_smoothed(axis, found, radii)
    axis.set(title=SMOOTHED, xlabel="L2 radius ε", ylabel="certified accuracy", ylim=(-0.02, 1.02))
    return figure


def _plot_smoothed(axis: Any, found: SmoothedReport, radii: Tensor) -> None:
    label = f"smoothed, σ = {found.settings.sigma:g}: holds with probability 1 − α per image"
    axis.plot(radii.numpy(), found.accuracy(radii).numpy(), color="C4", linestyle="-.", label=label)
    axis.legend(fontsize="small")


def _plot_accuracies(
    axis: Any, x: Any, relative: Tensor, accuracy: Tensor, color: str, confidence: float, counted: int
) -> None:
    marker = "o" if len(x) < _FEW else ""  # a line through one point is none
    if counted:
        label = f"{counted} images of confidence ≥ {confidence:g}"
        axis.plot(x, relative.numpy(), color=color, marker=marker, label=label)
    faint: dict[str, Any] = {"linewidth": 0.8, "linestyle": ":"} if counted else {}
    axis.plot(x, accuracy.numpy(), color=color, marker=marker, label="all images", **faint)


def draw_gallery(examples: Sequence[Example]) -> Figure:
    """The image, the change and the attacked image, with what the model says of the two.

    Args:
        examples: at least one.
    """
    figure = Figure(figsize=(6.5, 2.3 * len(examples)), layout="constrained")
    axes = figure.subplots(len(examples), 3, squeeze=False)
    for row, example in zip(axes, examples, strict=True):
        change = example.attacked - example.image
        largest = float(change.abs().max())
        middle = 0.5 + 0.5 * change / max(largest, 1e-12)
        titles = (f"{example.index}: {example.before}", f"change, ±{largest:.3g}", example.after)
        for axis, picture, title in zip(row, (example.image, middle, example.attacked), titles, strict=True):
            axis.imshow(_plane(picture), cmap="gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize="small")
            axis.set(xticks=[], yticks=[])
    return figure


def _plane(image: Tensor) -> Any:
    """Pixels (H, W, 3) of a colour image, or (H, W), the mean of the channels."""
    image = image.float().clamp(0, 1)
    return image.permute(1, 2, 0).numpy() if len(image) == 3 else image.mean(dim=0).numpy()
