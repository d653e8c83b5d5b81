"""Pictures of what an attractor model does to images."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from lightning_attractors.callbacks.output import log_figure, run_folder, write_atomically
from lightning_attractors.errors import SettingError, require


class _AttractorModel(Protocol):
    """What the pictures need of a module."""

    dt: float

    def equilibria(self) -> Tensor: ...

    def states(self, images: Tensor) -> Iterable[Tensor]: ...


class AttractorPictures(Callback):
    """Draws an attractor model's dynamics to TensorBoard, and after a test to ``figures/*.png`` too.

    Trajectories of all pixels of a few images (the colour of a line is its final value), the image beside
    its attractor and its final state, the attractor patterns and, where the module has them, the
    eigenvalues of its ``coupling`` and after a test its ``mse_over_time()``.

    The module needs ``equilibria() -> (K, N)``, one per class, ``states(images)``, which gives the states
    (B, N) over time, and the step length ``dt``; its batches are images (B, C, H, W) and labels (B,).

    Args:
        every_n_epochs: how often to draw while training, at least 1.
        num_images: how many images to follow, at least 1.

    Raises:
        SettingError: before training, if a setting is out of range or the module lacks one of the above.
    """

    def __init__(self, every_n_epochs: int = 5, num_images: int = 3) -> None:
        require(every_n_epochs >= 1, "every_n_epochs", every_n_epochs, "must be at least 1")
        require(num_images >= 1, "num_images", num_images, "must be at least 1")
        self.every_n_epochs = every_n_epochs
        self.num_images = num_images
        self._samples: tuple[Tensor, Tensor] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for name in ("equilibria", "states", "dt"):
            if not hasattr(pl_module, name):
                kind = type(pl_module).__name__
                raise SettingError("AttractorPictures", kind, f"has no {name}; take it off the callbacks")

    def on_validation_batch_start(self, *arguments: Any) -> None:
        self._keep(*arguments)

    def on_test_batch_start(self, *arguments: Any) -> None:
        self._keep(*arguments)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and trainer.is_global_zero and not trainer.sanity_checking:
            for name, figure in self.figures(pl_module, _class_names(trainer)).items():
                log_figure(trainer, name, figure)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        folder = run_folder(trainer) / "figures"
        curve = getattr(pl_module, "mse_over_time", lambda: None)()
        if not trainer.is_global_zero:
            return
        figures = self.figures(pl_module, _class_names(trainer))
        if curve is not None:
            figures["mse_over_time"] = draw_mse(curve.cpu(), float(cast(_AttractorModel, pl_module).dt))
        for name, figure in figures.items():
            log_figure(trainer, f"test/{name}", figure)
            if trainer.fast_dev_run:  # type: ignore[attr-defined]
                continue
            picture = io.BytesIO()
            figure.savefig(picture, dpi=120, format="png")
            write_atomically(folder / f"{name}.png", picture.getvalue())

    def figures(self, module: L.LightningModule, class_names: Sequence[str] = ()) -> dict[str, Figure]:
        """All pictures of the module on the images seen last, by name; classes go by number without names."""
        assert self._samples is not None
        model = cast(_AttractorModel, module)
        images, labels = self._samples
        with torch.no_grad():
            states = torch.stack(list(model.states(images))).float().cpu()
            attractors = model.equilibria().detach().cpu()
        images, labels = images.cpu(), labels.cpu()
        shape = tuple(images.shape[1:])
        names = class_names or [f"class {k}" for k in range(len(attractors))]
        figures = {
            "trajectories": draw_trajectories(states, [names[label] for label in labels], model.dt),
            "final_states": draw_triples(images, attractors[labels], states[-1]),
            "attractors": draw_patterns(attractors, names, shape),
        }
        coupling = getattr(model, "coupling", None)
        if coupling is not None:
            bound = getattr(model, "eigenvalue_bound", None)
            figures["eigenvalues"] = draw_eigenvalues(coupling.eigenvalues().real.cpu(), bound)
        return figures

    def _keep(self, trainer: L.Trainer, _: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch_idx == 0 and dataloader_idx == 0:
            images, labels = batch
            # The first image of each class, as far as they go, rather than the first images.
            first = [int((labels == label).nonzero()[0]) for label in labels.unique()[: self.num_images]]
            self._samples = (images[first], labels[first])


def _class_names(trainer: L.Trainer) -> Sequence[str]:
    return getattr(trainer.datamodule, "class_names", ())  # type: ignore[attr-defined]


def draw_trajectories(states: Tensor, titles: Sequence[str], dt: float) -> Figure:
    """x_i(t) of all pixels, one panel per image; states (T, B, N)."""
    count = states.shape[1]
    figure = Figure(figsize=(4.5 * count, 3.6), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    times = np.arange(len(states)) * dt
    limit = float(states[-1].abs().max())
    for b, axis in enumerate(axes):
        values = states[:, b].T.numpy()
        lines = [np.column_stack([times, line]) for line in values]
        colors = colormaps["coolwarm"]((values[:, -1] / limit + 1) / 2)
        axis.add_collection(LineCollection(lines, colors=colors, linewidths=0.6, alpha=0.7))
        axis.autoscale_view()
        axis.set(title=titles[b], xlabel="time t")
    axes[0].set_ylabel("state x_i(t)")
    return figure


def draw_triples(images: Tensor, attractors: Tensor, final: Tensor) -> Figure:
    """Each image (C, H, W) beside its attractor and its final state, both (N,)."""
    count, shape = len(images), tuple(images.shape[1:])
    figure = Figure(figsize=(6, 2.1 * count), layout="constrained")
    axes = figure.subplots(count, 3, squeeze=False)
    limit = float(attractors.abs().max())
    for row in range(count):
        axes[row][0].imshow(images[row].float().permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
        for column, state in ((1, attractors[row]), (2, final[row])):
            axes[row][column].imshow(_plane(state, shape), cmap="coolwarm", vmin=-limit, vmax=limit)
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
    limit = float(attractors.abs().max())
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, pattern, title in zip(axes.flat, attractors, titles, strict=False):
        axis.imshow(_plane(pattern, shape), cmap="coolwarm", vmin=-limit, vmax=limit)
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


def _plane(state: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """A state as one plane: the channels of a colour image stand above each other."""
    plane: np.ndarray = state.view(shape[0] * shape[1], shape[2]).float().numpy()
    return plane
