"""Pictures of many trials: their points, and how accurate and robust they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lightning_attractors.figures import COLUMN, FIT, OTHER, PAGE, in_style

_SCALE = "viridis"  # grows lighter steadily, in grey too
_WIDE = 18  # characters of a name below an axis
_LOGARITHMIC = 30  # a ratio of numbers from which on they are drawn by their logarithms


@in_style
def draw_parallel(
    study: str, names: Sequence[str], points: Sequence[Sequence[Any]], minimize: bool = False
) -> Figure:
    """One line per trial through upright axes, one per setting and the last one the metric, which colours it.

    Args:
        study: what it is called.
        names: of the axes.
        points: a value for each of them per trial, the best trial last, at least one; metrics are numbers.
        minimize: whether a small metric is good, and has the light colours.
    """
    columns = [_Axis(column) for column in zip(*points, strict=True)]
    figure = Figure(figsize=(max(COLUMN, min(PAGE, 1.3 * len(names))), 3.0))
    axis = figure.subplots()
    heights = np.array([column.heights for column in columns]).T  # (trials, axes)
    metrics = [float(point[-1]) for point in points]
    colors = colormaps[f"{_SCALE}_r" if minimize else _SCALE](_around(metrics)(metrics))
    for number, (height, color) in enumerate(zip(heights, colors, strict=True), start=1):
        best = number == len(points)
        axis.plot(
            height, color=color, linewidth=2.2 if best else 0.9, alpha=1 if best else 0.7, zorder=2 + best
        )
    for place, column in enumerate(columns):
        axis.axvline(place, color=FIT, linewidth=0.6, zorder=1)
        for height, label in column.ticks:
            text = axis.annotate(label, (place, height), (3, 0), textcoords="offset points", va="center")
            text.set(
                fontsize=6,
                zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )
    axis.set_xticks(range(len(names)), [_folded(name) for name in names])
    axis.set(yticks=[], ylim=(-0.05, 1.05), title=f"{study}: {len(points)} trials, the best one thick")
    axis.spines[:].set_visible(False)
    return figure


class _Axis:
    """Where the values of a setting are on an axis from 0 to 1, and what is written beside it."""

    def __init__(self, values: Sequence[Any]) -> None:
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if not numbers:
            kinds = sorted({str(value) for value in values})
            places = {kind: (i + 0.5) / len(kinds) for i, kind in enumerate(kinds)}
            self.heights = [places[str(value)] for value in values]
            self.ticks = [(height, kind) for kind, height in places.items()]
            return
        low, high = min(values), max(values)
        curved = low > 0 and high / low > _LOGARITHMIC
        bent = np.log(values) if curved else np.asarray(values, dtype=float)
        width = bent.max() - bent.min()
        self.heights = list((bent - bent.min()) / width) if width > 0 else [0.5] * len(values)
        self.ticks = [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")] if width > 0 else [(0.5, f"{low:.3g}")]


@in_style
def draw_robustness(
    study: str, attacks: Sequence[str], trials: Sequence[tuple[Any, dict[str, Any]]]
) -> Figure:
    """R against accuracy, a panel for each attack; a trial has the colour of its value of a setting.

    Args:
        study: what it is called.
        attacks: at least one.
        trials: of each the value of the setting, and by attack ``R``, ``uncertainty``, ``accuracy`` and
            ``counts``; open points do not count.
    """
    width = min(PAGE, COLUMN * len(attacks) + 0.4)
    figure = Figure(figsize=(width, 2.9))
    panels = figure.subplots(1, len(attacks), squeeze=False)[0]
    heights = _Axis([value for value, _ in trials])
    for panel, attack in zip(panels, attacks, strict=True):
        for height, (_, fits) in zip(heights.heights, trials, strict=True):
            if (fit := fits.get(attack)) is not None:
                color = colormaps[_SCALE](height)
                panel.errorbar(
                    fit["accuracy"],
                    fit["R"],
                    yerr=fit["uncertainty"],
                    fmt="o",
                    markersize=4,
                    color=color,
                    ecolor=OTHER,
                    markerfacecolor=color if fit["counts"] else "none",
                )
        panel.set(xlabel="accuracy", ylabel=f"robustness R ({attack})")
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colormaps[_SCALE]), ax=list(panels))
    bar.set_ticks([height for height, _ in heights.ticks], labels=[label for _, label in heights.ticks])
    figure.suptitle(study, fontsize=9)
    return figure


def _folded(name: str) -> str:
    """A long name on several lines, of which each ends at a dot."""
    return name if len(name) <= _WIDE else name.replace(".", ".\n")


def _around(values: Sequence[float]) -> Normalize:
    low, high = min(values), max(values)
    return Normalize(low, high) if high > low else Normalize(low - 0.5, high + 0.5)
