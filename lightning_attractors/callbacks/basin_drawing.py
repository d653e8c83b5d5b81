"""The figure of a few images' tubes, traps and radii."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from lightning_attractors.callbacks.drawings import NAME, draw_image
from lightning_attractors.figures import ATTACK, FIT, OTHER, OWN, PAGE, PROVED, SYMBOLS, in_lines, in_style
from lightning_attractors.norms import NormName

_ROW, _HEAD = 1.4, 0.9  # inches
# Nearer than this share of its largest distance a flight has come to its attractor.
_NEAR = 0.1
# How long a flight is drawn, in units of the time until it has arrived.
_BEYOND = 1.6


@dataclass(frozen=True)
class Basin:
    """What is known of one image.

    Attributes:
        image: shape (C, H, W).
        name: that of its class.
        label: its class.
        times: shape (T,).
        distances: of the tube's centre from every attractor, shape (T, K).
        length: how far the tube extends from its centre, in L2, shape (T,).
        certified: radius within which the class is proved.
        attacked: where an attack found another class; infinite where it found none.
        tried: how far the attack went at most.
        trap: radius of the trap around the label's attractor, 0 if there is none, None if nobody looked.
    """

    image: Tensor
    name: str
    label: int
    times: Tensor
    distances: Tensor
    length: Tensor
    certified: float
    attacked: float
    tried: float
    trap: float | None

    @property
    def reached(self) -> float:
        """How far the attack went."""
        return self.attacked if math.isfinite(self.attacked) else self.tried


@in_style
def draw_basins(basins: Sequence[Basin], norm: NormName) -> Figure:
    """One row for each of at least one image: the image, its flight with the tube, and the radii."""
    rows = len(basins)
    figure = Figure(figsize=(PAGE, _ROW * rows + _HEAD))
    axes = figure.subplots(rows, 3, squeeze=False, width_ratios=[1.0, 3.4, 2.0])
    farthest = max(basin.reached for basin in basins)
    for row, basin in zip(axes, basins, strict=True):
        draw_image(row[0], basin.image)
        _draw_flight(row[1], basin)
        _draw_radii(row[2], basin, 1.3 * farthest)
        row[0].set_ylabel(in_lines(basin.name, NAME), rotation=0, ha="right", va="center")
    titles = ("image $x$", "distance from every attractor", "how far it may be moved")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    axes[-1][1].set_xlabel("time $t$")
    axes[-1][2].set_xlabel(f"{SYMBOLS[norm]} distance from the image")
    figure.legend(
        handles=_legend(any(basin.trap for basin in basins)),
        loc="outside lower center",
        ncols=2,
    )
    return figure


def _legend(trap: bool) -> list[Any]:
    handles: list[Any] = [
        Line2D([], [], color=OWN, linewidth=1.6, label="to the attractor of the image's class"),
        Line2D([], [], color=OTHER, linewidth=0.8, label="to the other attractors"),
        Patch(color=OWN, alpha=0.25, label="tube: from every image within the certified radius, proved"),
    ]
    return (
        handles
        + [Patch(color=PROVED, alpha=0.3, label="trap: from here all ends at the attractor, proved")] * trap
    )


def _draw_flight(axis: Any, basin: Basin) -> None:
    """Distances over time, on a logarithmic axis where the flight comes near its attractor."""
    times, own = basin.times.numpy(), basin.distances[:, basin.label]
    low, high = own - basin.length, own + basin.length
    near = float(own.min()) < _NEAR * float(own.max())
    bottom = (
        (basin.trap or _NEAR * float(own.max())) / 10
        if near
        else max(0.0, float(torch.minimum(low.min(), basin.distances.min())))
    )
    for distance in basin.distances.T:
        axis.plot(times, distance.numpy(), color=OTHER, linewidth=0.8)
    axis.fill_between(
        times, low.clamp(min=bottom).numpy(), high.clamp(min=bottom).numpy(), color=OWN, alpha=0.25, lw=0
    )
    axis.plot(times, own.numpy(), color=OWN, linewidth=1.6)
    top = 1.1 * float(torch.maximum(basin.distances.max(), high[high.isfinite()].max()))
    arrived = (high <= (basin.trap or bottom)).nonzero()[:1, 0]
    end = min([float(times[-1]), *(_BEYOND * basin.times[arrived]).tolist()])
    axis.set(yscale="log" if near else "linear", ylim=(bottom, top), xlim=(0, end))
    axis.set_ylabel(r"$\Vert x(t) - \varphi_k\Vert_2$")
    if basin.trap:
        _draw_trap(axis, basin.trap, basin.times[arrived].tolist())


def _draw_trap(axis: Any, radius: float, arrived: list[float]) -> None:
    """The trap, and when all of the tube has come into it, if it has."""
    axis.axhspan(0, radius, color=PROVED, alpha=0.3, lw=0)
    for time in arrived:
        axis.axvline(time, color=PROVED, linewidth=0.8, linestyle=":")
        text = f"all caught at $t = {time:.3g}$"
        # left of the line and at the bottom, where the tube is not before it is caught
        place = {"xy": (time, axis.get_ylim()[0]), "xytext": (-3, 3), "ha": "right"}
        axis.annotate(text, **place, textcoords="offset points", fontsize=7, color=FIT)


def _draw_radii(axis: Any, basin: Basin, most: float) -> None:
    found = math.isfinite(basin.attacked)
    values = (basin.certified, basin.reached)
    bars = axis.barh([1, 0], values, color=[OWN, ATTACK], height=0.5)
    if not found:
        bars[1].set(facecolor="none", edgecolor=ATTACK, hatch="///")
    texts = (f"{basin.certified:.3g}", f"{basin.attacked:.3g}" if found else f"none to {basin.tried:.3g}")
    for y, value, text in zip((1, 0), values, texts, strict=True):
        axis.annotate(text, (value, y), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axis.set_yticks([1, 0], ["certified", "attack\nsucceeds" if found else "attack\nfails"])
    axis.set(xlim=(0, most), ylim=(-0.5, 1.5))
