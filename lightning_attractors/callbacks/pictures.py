"""Pictures of what an attractor model does to images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from torch import Tensor

from lightning_attractors.callbacks.drawings import (
    draw_eigenvalues,
    draw_mse,
    draw_patterns,
    draw_realisations,
    draw_strip,
    draw_trajectories,
)
from lightning_attractors.callbacks.output import class_names, keep_figure, log_figure, run_folder
from lightning_attractors.callbacks.robustness_trainer import pairs
from lightning_attractors.contracts import (
    Pictured,
    coupling_of,
    is_noisy,
    mse_over_time,
    observable_of,
    pictured,
)
from lightning_attractors.errors import require

_REALISATIONS = 30


class AttractorPictures(Callback):
    """Draws an attractor model's dynamics to the loggers, and after a test to ``figures/*.{png,pdf}`` too.

    A strip for a few images, from the image over its states to the attractor that these come to, trajectories
    of all nodes (the colour of a line is its final value), the attractor patterns and, where the module has
    them, the eigenvalues of its ``coupling`` and after a test its ``mse_over_time()``. A module with an
    ``observable(states)`` has its trajectories shown through it, under its ``observable_label``; one that
    ``is_noisy`` has thirty ``states(images, realisation=r)`` of one node drawn, with their standard
    deviation over time.

    The module needs ``equilibria() -> (K, N)``, one per class, ``states(images)``, which gives the states
    (B, N) over time, and the step length ``dt``.

    Args:
        every_n_epochs: how often to draw while training, at least 1.
        num_images: how many images to follow, at least 1.
        unpack_batch: takes a batch to images (B, C, H, W) and labels (B,); by default its first two elements.

    Raises:
        SettingError: before training, if a setting is out of range or the module lacks one of the above.
    """

    def __init__(
        self,
        every_n_epochs: int = 5,
        num_images: int = 3,
        unpack_batch: Callable[[Any], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        require(every_n_epochs >= 1, "every_n_epochs", every_n_epochs, "must be at least 1")
        require(num_images >= 1, "num_images", num_images, "must be at least 1")
        self.every_n_epochs = every_n_epochs
        self.num_images = num_images
        self.unpack_batch = unpack_batch or pairs
        self._samples: tuple[Tensor, Tensor] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        _model(pl_module)

    def on_validation_batch_start(self, *arguments: Any) -> None:
        self._keep(*arguments)

    def on_test_batch_start(self, *arguments: Any) -> None:
        self._keep(*arguments)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and trainer.is_global_zero and not trainer.sanity_checking:
            for name, figure in self.figures(pl_module, class_names(trainer)).items():
                log_figure(trainer, name, figure)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        folder = run_folder(trainer)
        curve = mse_over_time(pl_module)
        if not trainer.is_global_zero:
            return
        figures = self.figures(pl_module, class_names(trainer))
        if curve is not None:
            figures["mse_over_time"] = draw_mse(curve.cpu(), float(_model(pl_module).dt))
        for name, figure in figures.items():
            log_figure(trainer, name, figure)
            keep_figure(trainer, folder, name, figure)

    def figures(self, module: L.LightningModule, class_names: Sequence[str] = ()) -> dict[str, Figure]:
        """All pictures of the module on the images seen last, by name; classes go by number without names."""
        assert self._samples is not None
        model = _model(module)
        images, labels = self._samples
        observable, label = observable_of(module)
        states = _stacked(model.states(images))
        attractors = model.equilibria().detach().cpu()
        images, labels = images.cpu(), labels.cpu()
        shape = tuple(images.shape[1:])
        names = class_names or [f"class {k}" for k in range(len(attractors))]
        shown = [names[k] for k in labels]
        figures = {
            "strip": draw_strip(images, states, attractors, labels.tolist(), names, model.dt),
            "trajectories": draw_trajectories(observable(states), shown, model.dt, label),
            "attractors": draw_patterns(attractors, names, shape),
        }
        coupling, bound = coupling_of(module)
        if coupling is not None:
            figures["eigenvalues"] = draw_eigenvalues(coupling.eigenvalues().real.cpu(), bound)
        if is_noisy(module):
            start = images[:1].to(module.device)
            repeated = [_stacked(model.states(start, realisation=r)) for r in range(_REALISATIONS)]
            figures["realisations"] = draw_realisations(observable(torch.cat(repeated, 1)), model.dt, label)
        return figures

    def _keep(self, trainer: L.Trainer, _: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch_idx == 0 and dataloader_idx == 0:
            images, labels = self.unpack_batch(batch)
            # The first image of each class, as far as they go, rather than the first images.
            first = [int((labels == label).nonzero()[0]) for label in labels.unique()[: self.num_images]]
            self._samples = (images[first], labels[first])


def _model(module: L.LightningModule) -> Pictured:
    return pictured(module, "AttractorPictures")


@torch.no_grad()
def _stacked(states: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(states)).float().cpu()
