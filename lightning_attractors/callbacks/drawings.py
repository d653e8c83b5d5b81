"""Figures of an attractor model's states, patterns and eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional
from torchvision.utils import make_grid


def draw_trajectories(states: Tensor, titles: Sequence[str], dt: float, label: str = "x_i(t)") -> Figure:
    """All nodes over time, one panel per image; states (T, B, N)."""
    count = states.shape[1]
    figure = Figure(figsize=(4.5 * count, 3.6), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    times = np.arange(len(states)) * dt
    low, high = states[-1].min().item(), states[-1].max().item()
    for b, axis in enumerate(axes):
        values = states[:, b].T.numpy()
        lines = [np.column_stack([times, line]) for line in values]
        colors = colormaps["coolwarm"]((values[:, -1] - low) / max(high - low, 1e-12))
        axis.add_collection(LineCollection(lines, colors=colors, linewidths=0.6, alpha=0.7))
        axis.autoscale_view()
        axis.set(title=titles[b], xlabel="time t")
    axes[0].set_ylabel(label)
    return figure


def draw_realisations(states: Tensor, dt: float, label: str = "x_i(t)") -> Figure:
    """One node of one image under many realisations of the noise, and their spread; states (T, R, N).

    The node is the one whose standard deviation across realisations comes to be the largest.
    """
    spread = states.std(dim=1)
    node = int(spread.max(dim=0).values.argmax())
    times = np.arange(len(states)) * dt
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(times, states[:, :, node].numpy(), color="C0", linewidth=0.7, alpha=0.5)
    left.set(title=f"node {node}, {states.shape[1]} realisations", xlabel="time t", ylabel=label)
    right.plot(times, spread[:, node].numpy(), color="C3", label=f"node {node}")
    right.plot(times, spread.mean(dim=1).numpy(), color="black", linestyle="--", label="mean of all nodes")
    right.set(title="standard deviation across realisations", xlabel="time t", ylim=(0, None))
    right.legend()
    return figure


def draw_triples(images: Tensor, attractors: Tensor, final: Tensor) -> Figure:
    """Each image (C, H, W) beside its attractor and its final state, both (N,)."""
    count, shape = len(images), tuple(images.shape[1:])
    figure = Figure(figsize=(6, 2.1 * count), layout="constrained")
    axes = figure.subplots(count, 3, squeeze=False)
    low, high = attractors.min().item(), attractors.max().item()
    for row in range(count):
        axes[row][0].imshow(images[row].float().permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
        for column, state in ((1, attractors[row]), (2, final[row])):
            axes[row][column].imshow(_plane(state, shape), cmap="coolwarm", vmin=low, vmax=high)
    for axis, title in zip(axes[0], ("image", "attractor", "final state"), strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure


def draw_patterns(attractors: Tensor, titles: Sequence[str], shape: tuple[int, ...]) -> Figure:
    """The attractor pattern of every class."""
    columns = min(5, len(attractors))
    rows = -(-len(attractors) // columns)
    figure = Figure(figsize=(1.8 * columns, 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    low, high = attractors.min().item(), attractors.max().item()
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, pattern, title in zip(axes.flat, attractors, titles, strict=False):
        axis.imshow(_plane(pattern, shape), cmap="coolwarm", vmin=low, vmax=high)
        axis.set_title(title)
    return figure


def draw_eigenvalues(real_parts: Tensor, bound: float | None) -> Figure:
    """Histogram of the real parts of the coupling's eigenvalues, with the stability bound."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.hist(real_parts.numpy(), bins=60)
    if bound is not None:
        axis.axvline(bound, color="black", linestyle="--", label=f"stability bound {bound:.3g}")
        axis.legend()
    axis.set(xlabel="real part of the coupling's eigenvalues", ylabel="count")
    return figure


def draw_mse(curve: Tensor, dt: float) -> Figure:
    """MSE(t) on a logarithmic axis; curve (T,)."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(np.arange(len(curve)) * dt, curve.numpy())
    axis.set(xlabel="time t", ylabel="mean squared distance to the attractor", yscale="log")
    return figure


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
    figure = Figure(figsize=(6, 6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    axis.set_axis_off()
    return figure


def filter_images(filters: Tensor) -> Tensor | None:
    """Filters (F, ...) as images (F, C, w, w), or None: those of a dense layer may not be square."""
    if filters.ndim == 4:
        return filters
    flat = filters.flatten(1)
    side = math.isqrt(flat.shape[1])
    return flat.view(-1, 1, side, side) if side**2 == flat.shape[1] else None


def _plane(state: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """A state as one plane: channels of an image above each other, nodes that are no pixels row by row."""
    rows, columns = shape[0] * shape[1], shape[2]
    if len(state) != rows * columns:
        columns = math.ceil(math.sqrt(len(state)))
        rows = math.ceil(len(state) / columns)
    filled = functional.pad(state.float(), (0, rows * columns - len(state)), value=math.nan)
    plane: np.ndarray = filled.view(rows, columns).numpy()
    return plane
