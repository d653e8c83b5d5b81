"""Pictures of what a measurement has found."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_attractors.figures import ATTACK, CHANCE, FIT, OWN, PAGE, PROVED, SYMBOLS, in_lines, in_style
from lightning_attractors.norms import NormName
from lightning_attractors.robustness.attacks import RadiusSearch
from lightning_attractors.robustness.images import Example
from lightning_attractors.robustness.logistic import LogisticFit
from lightning_attractors.robustness.report import AttackReport, CertificateReport, Curve
from lightning_attractors.robustness.smoothed import SmoothedReport

_STRENGTH = r"strength $\varepsilon$"
About = Mapping[str, Any]
_FEW = 20  # points, up to which each is marked: a line through one is none
_NOTHING = 0.005  # accuracy from which on there is nothing to see
_ALL = "all images"
_PICTURE = 0.2 * PAGE  # inches for the name of a class
_WIDE, _NARROW = 60, 36  # letters in a line: of a title, and within the picture


def draw(
    found: AttackReport | CertificateReport | SmoothedReport, about: About | None = None
) -> dict[str, Figure]:
    """The pictures of an attack, or of a certificate, by how their names go on after its own.

    Args:
        found: what was measured.
        about: for the titles: ``model``, ``data``, ``split`` and ``class_names``, as far as they are known.
    """
    about = about or {}
    if isinstance(found, CertificateReport):
        counted = int(found.images.confident(found.confidence).sum())
        return {"": draw_certificate(found.curve, found.norm, found.confidence, counted, about)}
    if isinstance(found, SmoothedReport):
        return {"": draw_smoothed(found, about)}
    gallery = {"_gallery": draw_gallery(found.examples, about)} if found.examples else {}
    return {"": draw_attack(found, about), **gallery}


@in_style
def draw_attack(found: AttackReport, about: About) -> Figure:
    """An attack's curve, with the smoothed classifier's where both are in L2, or why there is no R."""
    norm = found.strength_norm
    counted, reason = int(found.counts.sum()), "" if found.robustness is not None else found.reason
    title = _title(f"{found.name}{f' in {SYMBOLS[norm]}' if norm else ''}", about)
    figure = draw_curve(title, _with_certificate(found), found.fit, found.confidence, counted, found.norm)
    axis = figure.axes[0]
    if norm:
        axis.set_xlabel(f"{_STRENGTH}: distance in {SYMBOLS[norm]}, pixels in [0, 1]")
    if found.smoothed is not None and norm == "l2":
        _plot_smoothed(axis, found.smoothed, found.curve.strengths.abs().sort().values)
        axis.legend()
    if isinstance(found.trial, RadiusSearch):
        _end_where_nothing_is_left(axis, found.curve)
    if not len(found.images):
        reason = "no image was attacked"
    if reason:
        text = textwrap.fill(f"no R: {reason}", _NARROW)
        axis.text(0.98, 0.7, text, transform=axis.transAxes, ha="right", va="top", color=FIT, fontsize=7)
    return figure


def _with_certificate(found: AttackReport) -> Curve:
    """The curve, with what is certified of all images where there are none that count."""
    images, curve = found.images, found.curve
    if bool(found.counts.any()) or not (images.has_certificate and bool(images.bounded.all())):
        return curve
    held = images.correct & (images.certified >= curve.strengths.abs().unsqueeze(1))
    return replace(curve, certified=held.double().mean(dim=1))


def _named(said: tuple[int, float], about: About) -> str:
    """A predicted class, by its name where there is one, and the confidence."""
    names: Sequence[str] = about.get("class_names") or ()
    label, confidence = said
    name = names[label] if label < len(names) else f"class {label}"
    return f"{in_lines(name, _PICTURE)}\nat {confidence:.2f}"


def _title(what: str, about: About) -> str:
    """Which model was measured on which images, and how."""
    split = f" ({about['split']} images)" if about.get("split") else ""
    data = f" on {about['data']}" if about.get("data") else ""
    subject = f"{about.get('model', '')}{data}{split}".strip()
    return f"{subject}: {what}" if subject else what


def _end_where_nothing_is_left(axis: Any, found: Curve) -> None:
    """Cut the tail of a curve: few images need not take up half the picture."""
    curves = [found.accuracy] + [found.relative] * bool(found.relative.isfinite().all())
    left = torch.stack(curves).amax(dim=0)
    gone = (left <= _NOTHING).nonzero()
    if len(gone) and int(gone[0]) > 0:
        axis.set_xlim(0, 1.05 * float(found.strengths[gone[0]]))


@in_style
def draw_curve(
    title: str, found: Curve, fit: LogisticFit | None, confidence: float, counted: int, norm: NormName
) -> Figure:
    """Accuracies against strength, the fit with R, and the certified curve, in the norm, below them."""
    figure, axis = _axis(title, _STRENGTH, "accuracy")
    strengths, order = found.strengths.sort()
    x = strengths.numpy()
    _plot_accuracies(axis, x, found.relative[order], found.accuracy[order], OWN, confidence, counted)
    if fit is not None and fit.fitted:
        signs = sorted(set(strengths.sign().tolist()) - {0.0}, reverse=True)
        # A radius is the smallest |ε| of either sign, which is less than what one sign alone would give
        label = "generalised logistic" + (", either sign" if len(signs) > 1 else "")
        axis.plot(x, fit(strengths.abs()).numpy(), color=ATTACK, linestyle="--", linewidth=1, label=label)
        label = rf"$R = {fit.R:.4g} \pm {fit.uncertainty:.1g}$" + ("" if fit.counts else " (does not count)")
        for number, sign in enumerate(signs):
            axis.axvline(sign * fit.R, color=ATTACK, linewidth=0.8, label=None if number else label)
    if found.certified is not None:
        certified = found.certified[order].numpy()
        axis.fill_between(x, certified, color=PROVED, alpha=0.15, linewidth=0)
        label = f"certified in {SYMBOLS[norm]}: no attack gets below"
        axis.plot(x, certified, color=PROVED, marker=_marker(x), label=label)
    axis.legend()
    return figure


@in_style
def draw_certificate(
    found: Curve, norm: NormName, confidence: float, counted: int, about: About | None = None
) -> Figure:
    """Certified accuracies against the radius."""
    title = _title(f"certified in {SYMBOLS[norm]}", about or {})
    figure, axis = _axis(title, rf"{SYMBOLS[norm]} radius $\varepsilon$", "certified accuracy")
    x = found.strengths.numpy()
    _plot_accuracies(axis, x, found.relative, found.accuracy, PROVED, confidence, counted)
    if not bool((found.accuracy[1:] > 0).any()):
        axis.text(0.5, 0.5, "no image has a radius above 0", transform=axis.transAxes, ha="center", color=FIT)
    axis.legend()
    return figure


@in_style
def draw_smoothed(found: SmoothedReport, about: About | None = None) -> Figure:
    """The smoothed classifier's certified accuracy against the radius, and that of the classifier itself."""
    title = _title("smoothed classifier", about or {})
    figure, axis = _axis(title, rf"{SYMBOLS['l2']} radius $\varepsilon$", "certified accuracy")
    radii = found.strengths
    itself = found.itself(radii)
    if itself is not None:
        axis.plot(radii.numpy(), itself.numpy(), color=PROVED, label="certified of the classifier itself")
    _plot_smoothed(axis, found, radii)
    axis.legend()
    return figure


def _axis(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(0.7 * PAGE, 3.2))
    axis = figure.subplots()
    axis.set(xlabel=x, ylabel=y, ylim=(-0.02, 1.02))
    axis.set_title(textwrap.fill(title, _WIDE))
    return figure, axis


def _plot_smoothed(axis: Any, found: SmoothedReport, radii: Tensor) -> None:
    label = f"smoothed, σ = {found.settings.sigma:g}: holds with probability 1 − α per image"
    axis.plot(radii.numpy(), found.accuracy(radii).numpy(), color=CHANCE, linestyle="-.", label=label)


def _marker(x: Any) -> str:
    return "o" if len(x) <= _FEW else ""


def _plot_accuracies(
    axis: Any, x: Any, relative: Tensor, accuracy: Tensor, color: str, confidence: float, counted: int
) -> None:
    marks = {"color": color, "marker": _marker(x), "markersize": 3}
    if counted:
        label = f"{counted} images of confidence ≥ {confidence:g}"
        axis.plot(x, relative.numpy(), label=label, **marks)
        axis.plot(x, accuracy.numpy(), linewidth=0.8, linestyle=":", label=_ALL, **marks)
    else:
        axis.plot(x, accuracy.numpy(), label=_ALL, **marks)


@in_style
def draw_gallery(examples: Sequence[Example], about: About | None = None) -> Figure:
    """The image, the change and the attacked image, with what the model says of the two.

    Args:
        examples: at least one.
        about: as of :func:`draw`.
    """
    figure = Figure(figsize=(0.7 * PAGE, 2.1 * len(examples) + 0.3))
    about = about or {}
    figure.suptitle(textwrap.fill(_title("images that were broken", about), _WIDE), fontsize=9)
    axes = figure.subplots(len(examples), 3, squeeze=False)
    for row, example in zip(axes, examples, strict=True):
        change = example.attacked - example.image
        largest = float(change.abs().max())
        middle = 0.5 + 0.5 * change / max(largest, 1e-12)
        before, after = (_named(said, about) for said in (example.before, example.after))
        titles = (f"image {example.index}:\n{before}", f"change: ±{largest:.3g}", after)
        for axis, picture, title in zip(row, (example.image, middle, example.attacked), titles, strict=True):
            axis.imshow(_plane(picture), cmap="gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize=8)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    return figure


def _plane(image: Tensor) -> Any:
    """Pixels (H, W, 3) of a colour image, or (H, W), the mean of the channels."""
    image = image.float().clamp(0, 1)
    return image.permute(1, 2, 0).numpy() if len(image) == 3 else image.mean(dim=0).numpy()
