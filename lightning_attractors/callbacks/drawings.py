"""Figures of an attractor model's states, patterns and eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional
from torchvision.utils import make_grid

from lightning_attractors.figures import (
    ATTACK,
    COLUMN,
    DIVERGING,
    FIT,
    PAGE,
    add_caption,
    in_lines,
    in_style,
)

STATE = "$x_i$"
_STILL = 0.01  # of the way that a state goes: nearer than this to its end nothing happens any more
_LEFT = (0.7, 0.35, 0.1, _STILL)  # shares of the way that are left in a strip, after the start
NAME = 0.85  # inches for a name beside a row
_PANELS = 4  # beside each other
_MOST_ROWS = 10  # of attractors that are large enough for long names
_THERE = 0.1  # of an attractor's length: a state that is nearer has arrived
_SINGLE = 0.7 * PAGE  # of figures with one panel
_TIME = "Time t is that of dx/dt = F(x), and not of a clock; a step of the integration is {dt:.3g}."
_TRAJECTORIES = (
    "A panel is an image, its title the class. A line is one of {count} nodes over time, in the colour of "
    "its value at the end. Where all lines are level the state rests, as it does at an attractor. "
)
_REALISATIONS = (
    "Left, a line is the same node for the same image, each time with other noise. Right, how far such lines "
    "are apart: of this node, which comes to vary most, and, dashed, in the mean over all nodes. "
)
_MSE = (
    "How far states are from φ, the attractor of their image's class: the squared distance, in the mean over "
    "all test images. Down is nearer. Where the line is level, their mean moves no more. "
)
_COUPLING = (
    "The coupling is the trained matrix by which {count} nodes act on each other. The bars count its "
    "eigenvalues by their real part."
)
_CERTIFIED = (
    "What decides, the eigenvalues of the Jacobians at the attractors, is drawn by StabilityCertificate, as "
    "spectra."
)
_STRIP = (
    "{start} the start x(0) of a flow dx/dt = F(x). What is trained is the flow; each class has an attractor "
    "in it, a state that the states around it run into and stay in. An attractor is a code that we chose for "
    "its class before the training: no picture of the class, and nothing that was learned."
)


@in_style
def draw_strip(
    images: Tensor, states: Tensor, attractors: Tensor, labels: Sequence[int], names: Sequence[str], dt: float
) -> Figure:
    """From image to attractor, one row per image, with the words that explain it.

    Args:
        images: shape (B, C, H, W).
        states: over time, shape (T, B, N); at least one after the first.
        attractors: shape (K, N).
        labels: of the images.
        names: of the K classes.
        dt: the step length.
    """
    count, shape = len(images), tuple(images.shape[1:])
    moments = _moments(states)
    nearest = (states[-1].unsqueeze(1) - attractors).norm(dim=2).min(dim=1)
    reached = nearest.indices.tolist()
    # a flow may stop where the class is decided, before it is there
    arrived = bool((nearest.values <= _THERE * attractors[reached].norm(dim=1)).all())
    columns = len(moments) + 2
    figure = Figure(figsize=(PAGE, 0.1 + count * PAGE / (columns + 1)))
    axes = figure.subplots(count, columns, squeeze=False)
    spread = _range(attractors)
    for row, image, label, end, b in zip(axes, images, labels, reached, range(count), strict=True):
        draw_image(row[0], image)
        row[0].set_ylabel(in_lines(names[label], NAME), rotation=0, ha="right", va="center")
        for axis, k in zip(row[1:-1], moments, strict=True):
            axis.imshow(_plane(states[k, b], shape), cmap=DIVERGING, norm=spread)
        row[-1].imshow(_plane(attractors[end], shape), cmap=DIVERGING, norm=spread)
        row[-1].yaxis.set_label_position("right")
        wrong = {} if end == label else {"color": ATTACK}
        row[-1].set_ylabel(in_lines(names[end], NAME), rotation=0, ha="left", va="center", **wrong)
    titles = [
        "image",
        *(f"$t = {k * dt:.3g}$" for k in moments),
        "attractor" if arrived else "nearest\nattractor",
    ]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        _bare(axis)
    _add_colour_bar(figure, axes, spread, f"state of node {STATE}", extend="both")
    pixels = states.shape[2] == images[0].numel()
    start = "The pixels of an image are" if pixels else "What a network makes of an image is"
    add_caption(figure, _STRIP.format(start=start))
    return figure


def _moments(states: Tensor) -> list[int]:
    """The start, and from when on at most given shares of the way to the end are left; states (T, ...)."""
    return sorted({0, *(_from_when(states, share) for share in _LEFT)})


def _from_when(states: Tensor, share: float) -> int:
    """The first index from which on a state (T, ...) is this near its end, as a share of its longest way."""
    away = (states - states[-1]).reshape(len(states), -1).norm(dim=1)
    farther = (~(away <= share * away.max())).nonzero()  # not even numbers are farther
    return min(int(farther[-1]) + 1, len(states) - 1) if len(farther) else 0


def end_of_action(states: Tensor) -> int:
    """The index of a state (T, ...) a little after which nothing happens; the last where it never ends."""
    return min(len(states) - 1, math.ceil(1.25 * _from_when(states, _STILL)) + 1)


@in_style
def draw_trajectories(states: Tensor, titles: Sequence[str], dt: float, label: str = STATE) -> Figure:
    """All nodes over time, one panel per image, until they rest; states (T, B, N)."""
    count, end = states.shape[1], end_of_action(states)
    rows = -(-count // _PANELS)
    columns = -(-count // rows)
    width = max(COLUMN, min(PAGE, 2.4 * columns))
    figure = Figure(figsize=(width, 2.3 * rows))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    times = np.arange(end + 1) * dt
    spread = _range(states[-1])
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    for axis, title, values in zip(axes.flat, titles, states.unbind(dim=1), strict=False):
        lines = [np.column_stack([times, line]) for line in values[: end + 1].T.numpy()]
        colors = colormaps[DIVERGING](spread(values[-1].numpy()))
        # of hundreds of lines: as points, not as paths, also in a PDF
        collection = LineCollection(lines, colors=colors, linewidths=0.5, alpha=0.7, rasterized=True)
        axis.add_collection(collection)
        axis.autoscale_view()
        axis.set(xlabel="time $t$", xlim=(0, times[-1]))
        axis.set_title(in_lines(title, 0.75 * width / columns), fontsize=8)
    for row in axes:
        row[0].set_ylabel(f"{label} of every node")
    _add_colour_bar(figure, axes, spread, f"{label} at the end")
    add_caption(figure, (_TRAJECTORIES + _TIME).format(count=states.shape[2], dt=dt))
    return figure


@in_style
def draw_realisations(states: Tensor, dt: float, label: str = STATE) -> Figure:
    """One node of one image under many realisations of the noise, and their spread; states (T, R, N).

    The node is the one whose standard deviation across realisations comes to be the largest.
    """
    spread = states.std(dim=1)
    node = int(spread.max(dim=0).values.argmax())
    times = np.arange(len(states)) * dt
    figure = Figure(figsize=(PAGE, 2.5))
    left, right = figure.subplots(1, 2)
    left.plot(times, states[:, :, node].numpy(), color="C0", linewidth=0.7, alpha=0.5)
    left.set(title=f"node {node}, {states.shape[1]} realisations", ylabel=label)
    right.plot(times, spread[:, node].numpy(), color="C0", label=f"node {node}")
    right.plot(times, spread.mean(dim=1).numpy(), color=FIT, linestyle="--", label="mean of all nodes")
    right.set(title="standard deviation across realisations", ylabel=f"sd of {label}", ylim=(0, None))
    right.legend()
    for axis in (left, right):
        axis.set(xlabel="time $t$", xlim=(0, times[-1]))
    add_caption(figure, (_REALISATIONS + _TIME).format(dt=dt))
    return figure


@in_style
def draw_patterns(attractors: Tensor, titles: Sequence[str], shape: tuple[int, ...]) -> Figure:
    """The attractor of every class."""
    few = len(attractors) <= 5 or (max(map(len, titles)) > 8 and len(attractors) <= 5 * _MOST_ROWS)
    columns = min(5 if few else 10, len(attractors))
    rows = -(-len(attractors) // columns)
    side = PAGE / (columns + 1)
    titles = [in_lines(title, 0.9 * side) for title in titles]
    lines = 1 + max(title.count("\n") for title in titles)
    figure = Figure(figsize=(PAGE, rows * (side + 0.13 * lines + 0.1) + 0.3))
    axes = figure.subplots(rows, columns, squeeze=False)
    spread = _range(attractors)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, pattern, title in zip(axes.flat, attractors, titles, strict=False):
        axis.imshow(_plane(pattern, shape), cmap=DIVERGING, norm=spread)
        axis.set_title(title, fontsize=8)
    _add_colour_bar(figure, axes, spread, f"state of node {STATE}")
    figure.suptitle("The attractor of every class: a code that was chosen, not learned", fontsize=9)
    return figure


@in_style
def draw_eigenvalues(real_parts: Tensor, bound: float | None) -> Figure:
    """Histogram of the real parts of the coupling's eigenvalues, with the stability bound."""
    figure = Figure(figsize=(_SINGLE, 2.4))
    axis = figure.subplots()
    axis.hist(real_parts.numpy(), bins=min(60, 3 + len(real_parts) // 2))
    meaning = _CERTIFIED
    if bound is not None:
        axis.axvline(bound, color=FIT, linestyle="--", label=f"stable below {bound:.3g}")
        low, high = axis.get_xlim()
        high = max(high, bound + 0.05 * (bound - low))
        axis.set_xlim(low, high)
        axis.axvspan(bound, high, color=ATTACK, alpha=0.12, linewidth=0, label="unstable")
        figure.legend(loc="outside right upper")
        meaning = f"The flow is stable at the attractors if all are left of the dashed line. {meaning}"
    axis.set(xlabel=r"real part of $\lambda$", ylabel="how many eigenvalues")
    axis.set_title(r"eigenvalues $\lambda$ of the coupling")
    add_caption(figure, f"{_COUPLING.format(count=len(real_parts))} {meaning}")
    return figure


@in_style
def draw_mse(curve: Tensor, dt: float) -> Figure:
    """MSE(t), on a logarithmic axis where it changes much, until it rests; curve (T,)."""
    kept = curve[: end_of_action(curve.clamp(min=1e-30).log()) + 1]
    figure = Figure(figsize=(_SINGLE, 2.4))
    axis = figure.subplots()
    axis.plot(np.arange(len(kept)) * dt, kept.numpy())
    # within a decade a logarithmic axis has no round numbers
    scale = "log" if kept.max() > 10 * kept.min() else "linear"
    axis.set(xlabel="time $t$", yscale=scale, xlim=(0, max(len(kept) - 1, 1) * dt))
    axis.set_ylabel(r"mean of $\Vert x(t) - \varphi\Vert_2^2$")
    axis.set_title(r"test images on the way to their attractor $\varphi$")
    add_caption(figure, (_MSE + _TIME).format(dt=dt))
    return figure


@in_style
def draw_filters(filters: Tensor) -> Figure:
    """Filters (F, C, w, w) in a square grid, each from its smallest entry (0) to its largest (1).

    In colour with three channels, otherwise the mean over channels in grey.
    """
    planes = filters if filters.shape[1] == 3 else filters.mean(dim=1, keepdim=True)
    flat = planes.float().cpu().flatten(1)
    low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
    scaled = ((flat - low) / (high - low).clamp(min=1e-12)).view_as(planes)
    side = math.ceil(math.sqrt(len(filters)))
    grid = make_grid(scaled, nrow=side, padding=1, pad_value=1.0)
    figure = Figure(figsize=(PAGE, PAGE + 0.2))
    axis = figure.subplots()
    axis.imshow(grid.permute(1, 2, 0).numpy())
    axis.set_axis_off()
    axis.set_title(f"{len(filters)} filters, each from its smallest weight (dark) to its largest (light)")
    return figure


def filter_images(filters: Tensor) -> Tensor | None:
    """Filters (F, ...) as images (F, C, w, w), or None: those of a dense layer may not be square."""
    if filters.ndim == 4:
        return filters
    flat = filters.flatten(1)
    side = math.isqrt(flat.shape[1])
    return flat.view(-1, 1, side, side) if side**2 == flat.shape[1] else None


def _range(values: Tensor) -> Normalize:
    low, high = values.min().item(), values.max().item()
    return Normalize(low, high if high > low else low + 1e-12)


def _add_colour_bar(
    figure: Figure, axes: Any, spread: Normalize, label: str, extend: str = "neither"
) -> None:
    mappable = ScalarMappable(spread, DIVERGING)
    bar = figure.colorbar(mappable, ax=axes, label=label, extend=extend, fraction=0.03, pad=0.02, aspect=30)
    bar.outline.set_visible(False)


def draw_image(axis: Any, image: Tensor) -> None:
    """An image (C, H, W) in colour with three channels, else the mean of the channels in grey."""
    image = image.float().clamp(0, 1)
    plane = image.permute(1, 2, 0) if len(image) == 3 else image.mean(dim=0)
    axis.imshow(plane.numpy(), cmap="gray", vmin=0, vmax=1)
    _bare(axis)


def _bare(axis: Any) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _plane(state: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """A state as one plane: channels of an image above each other, nodes that are no pixels row by row."""
    rows, columns = shape[0] * shape[1], shape[2]
    if len(state) != rows * columns:
        columns = math.ceil(math.sqrt(len(state)))
        rows = math.ceil(len(state) / columns)
    filled = functional.pad(state.float(), (0, rows * columns - len(state)), value=math.nan)
    plane: np.ndarray = filled.view(rows, columns).numpy()
    return plane
