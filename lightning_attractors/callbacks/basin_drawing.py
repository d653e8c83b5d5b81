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

from lightning_attractors.norms import NORMS, NormName

_OWN, _OTHER, _TRAP, _ATTACK = "#0b5394", "#9a9a9a", "#38761d", "#cc4125"
_WIDTH, _ROW, _HEAD = 7.1, 1.4, 0.9  # inches: the two columns of a paper
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


def draw_basins(basins: Sequence[Basin], norm: NormName) -> Figure:
    """One row for each of at least one image: the image, its flight with the tube, and the radii."""
    rows = len(basins)
    figure = Figure(figsize=(_WIDTH, _ROW * rows + _HEAD), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False, width_ratios=[1.0, 3.4, 2.0])
    farthest = max(basin.reached for basin in basins)
    for row, basin in zip(axes, basins, strict=True):
        _draw_image(row[0], basin)
        _draw_flight(row[1], basin)
        _draw_radii(row[2], basin, 1.3 * farthest)
        row[0].set_ylabel(basin.name, fontsize=9, rotation=0, ha="right", va="center")
    titles = ("image x", "distance from every attractor", "how far it may be moved")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    axes[-1][1].set_xlabel("time t", fontsize=8)
    axes[-1][2].set_xlabel(f"{NORMS[norm]} distance from the image", fontsize=8)
    figure.legend(
        handles=_legend(any(basin.trap for basin in basins)),
        loc="outside lower center",
        ncols=2,
        fontsize=7.5,
        frameon=False,
    )
    return figure


def _legend(trap: bool) -> list[Any]:
    handles: list[Any] = [
        Line2D([], [], color=_OWN, linewidth=1.6, label="to the attractor of the image's class"),
        Line2D([], [], color=_OTHER, linewidth=0.8, label="to the other attractors"),
        Patch(color=_OWN, alpha=0.25, label="tube: from every image within the certified radius, proved"),
    ]
    return (
        handles
        + [Patch(color=_TRAP, alpha=0.3, label="trap: from here all ends at the attractor, proved")] * trap
    )


def _draw_image(axis: Any, basin: Basin) -> None:
    image = basin.image.float().clamp(0, 1)
    plane = image.permute(1, 2, 0) if len(image) == 3 else image.mean(dim=0)
    axis.imshow(plane.numpy(), cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])


def _draw_flight(axis: Any, basin: Basin) -> None:
    """Distances over time, on a logarithmic axis where the flight comes near its attractor."""
    times, own = basin.times.numpy(), basin.distances[:, basin.label]
    low, high = own - basin.length, own + basin.length
    near = float(own.min()) < _NEAR * float(own.max())
    bottom = (basin.trap or _NEAR * float(own.max())) / 10 if near else float(low.min().clamp(min=0))
    for distance in basin.distances.T:
        axis.plot(times, distance.numpy(), color=_OTHER, linewidth=0.8)
    axis.fill_between(
        times, low.clamp(min=bottom).numpy(), high.clamp(min=bottom).numpy(), color=_OWN, alpha=0.25, lw=0
    )
    axis.plot(times, own.numpy(), color=_OWN, linewidth=1.6)
    top = 1.1 * float(torch.maximum(basin.distances.max(), high[high.isfinite()].max()))
    arrived = (high <= (basin.trap or bottom)).nonzero()[:1, 0]
    end = min([float(times[-1]), *(_BEYOND * basin.times[arrived]).tolist()])
    axis.set(yscale="log" if near else "linear", ylim=(bottom, top), xlim=(0, end))
    axis.tick_params(labelsize=7)
    axis.set_ylabel("‖x(t) − φₖ‖₂", fontsize=8)
    if basin.trap:
        _draw_trap(axis, basin.trap, basin.times[arrived].tolist())


def _draw_trap(axis: Any, radius: float, arrived: list[float]) -> None:
    """The trap, and when all of the tube has come into it, if it has."""
    axis.axhspan(0, radius, color=_TRAP, alpha=0.3, lw=0)
    for time in arrived:
        axis.axvline(time, color=_TRAP, linewidth=0.8, linestyle=":")
        text = f"all caught at t = {time:.3g}"
        axis.annotate(text, (time, radius), (3, 3), textcoords="offset points", fontsize=7, color=_TRAP)


def _draw_radii(axis: Any, basin: Basin, most: float) -> None:
    found = math.isfinite(basin.attacked)
    values = (basin.certified, basin.reached)
    bars = axis.barh([1, 0], values, color=[_OWN, _ATTACK], height=0.5)
    if not found:
        bars[1].set(facecolor="none", edgecolor=_ATTACK, hatch="///")
    texts = (f"{basin.certified:.3g}", f"{basin.attacked:.3g}" if found else f"none to {basin.tried:.3g}")
    for y, value, text in zip((1, 0), values, texts, strict=True):
        axis.annotate(text, (value, y), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axis.set_yticks([1, 0], ["certified", "attack\nsucceeds" if found else "attack\nfails"])
    axis.set(xlim=(0, most), ylim=(-0.5, 1.5))
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
