"""The f-score of filters that learn locally, and a warning when one unit takes them all."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_attractors.callbacks.drawings import draw_filters, filter_images
from lightning_attractors.callbacks.output import keep_figure, log_figure, log_scalars, run_folder
from lightning_attractors.contracts import currents_of, norm_exponent, phases_of
from lightning_attractors.errors import SettingError, require
from lightning_attractors.metrics import converged_filters, negative_share, positive_share

Collapse = Literal["warn", "stop", "raise"]

# Of the batch at which activities are measured.
_IMAGES = 64
# More all-negative filters than this share mean that one unit has pushed the others away. Healthy training
# has next to none while its filters are still few.
_LOST = 0.25


class CollapsedError(RuntimeError):
    """One unit wins every patch and the other filters are lost, and ``on_collapse`` is ``raise``."""


class FScore(Callback):
    """Watches filters that learn locally: their f-score, and the "blue wall of death" of Torvik (2023).

    In the blue wall of death one unit wins all patches and drives the others to all-negative filters, which
    no patch can drive any more. It is taken to have come when less than ``threshold`` of the filters are
    all-positive, so that the f-score is lower still, while over a quarter are all-negative: norms come to
    within the tolerance late, signs tell early. Filters at their start are neither.

    Logs at the end of training epochs ``filters/f_score``, ``filters/negative`` (the share that is
    all-negative) and ``filters/largest_change`` (over filters, ‖ΔW_k‖ / ‖W_k‖ since the last look), and draws
    the filters to the loggers and to ``figures/filters.{png,pdf}`` in the run's folder; filters (F, D) of a
    dense layer are drawn where D is a square.

    The module needs ``filters``, shape (F, ...), and the exponent ``p`` of their norm; arguments here serve
    one that has them elsewhere. A module that has ``currents(images) -> (B, F, ...)`` and batches that
    begin with images (B, C, H, W) has the mean activity logged too, the current divided by ‖W_k‖_p^(p−1),
    of converged and of other filters: ``filters/activity_converged`` and ``filters/activity_unconverged``.

    Args:
        tolerance: largest distance from 1 of the norm of a converged filter, above 0.
        p: exponent of the norm, at least 1; the module's own if not given.
        filters: takes the module, gives its filters; or the name of the attribute, such as ``conv.weight``.
        threshold: share of all-positive filters, a bound of the f-score, below which the filters can have
            collapsed, in [0, 1].
        on_collapse: what to do then: ``warn`` once, ``stop`` the whole training or ``raise``.
        every_n_epochs: how often to look, at least 1; under a ``TwoPhaseTrainer`` at the end of the filter
            phase too, and not after it.
        unpack_batch: takes a batch to images (B, C, H, W) and whatever else; by default its first element.

    Raises:
        SettingError: before training, if a setting is out of range or the module has no filters.
        CollapsedError: if the filters collapse and ``on_collapse`` is ``raise``.
    """

    def __init__(
        self,
        tolerance: float = 1e-6,
        p: float | None = None,
        filters: str | Callable[[L.LightningModule], Tensor] = "filters",
        threshold: float = 0.15,
        on_collapse: Collapse = "warn",
        every_n_epochs: int = 1,
        unpack_batch: Callable[[Any], Sequence[Any]] | None = None,
    ) -> None:
        require(tolerance > 0, "tolerance", tolerance, "must be above 0")
        require(p is None or p >= 1, "p", p, "must be at least 1")
        require(0 <= threshold <= 1, "threshold", threshold, "must be between 0 and 1")
        reactions = get_args(Collapse)
        require(on_collapse in reactions, "on_collapse", on_collapse, f"must be one of {reactions}")
        require(every_n_epochs >= 1, "every_n_epochs", every_n_epochs, "must be at least 1")
        self.tolerance = tolerance
        self.p = p
        self.threshold = threshold
        self.on_collapse = on_collapse
        self.every_n_epochs = every_n_epochs
        self.unpack_batch = unpack_batch
        self._filters = operator.attrgetter(filters) if isinstance(filters, str) else filters
        self._previous: Tensor | None = None
        self._images: Tensor | None = None
        self._warned = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        kind = type(pl_module).__name__
        try:
            shape = tuple(self.filters(pl_module).shape)
        except AttributeError as error:
            problem = f"{error}; give the callback the attribute's name or a callable"
            raise SettingError("FScore.filters", kind, problem) from error
        require(len(shape) >= 2, "FScore.filters", shape, f"{kind}'s must be of shape (F, ...)")
        currents_of(pl_module)  # refuses one that does not take images
        if self.p is None and norm_exponent(pl_module) is None:
            raise SettingError("FScore.p", None, f"{kind} has no p, so give the callback the norm's exponent")

    def filters(self, module: L.LightningModule) -> Tensor:
        """The module's filters, (F, ...), apart from its graph."""
        return self._filters(module).detach()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._previous = self.filters(pl_module).clone()
        self._images = None
        self._warned = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0 and currents_of(pl_module) is not None:
            images = _begins_with_images(batch) if self.unpack_batch is None else self.unpack_batch(batch)[0]
            # Other things than images may be trained on, such as features computed before.
            fits = images.ndim == 4 and images.shape[1] == self.filters(pl_module).shape[1]
            self._images = images[:_IMAGES] if fits else None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._is_due(trainer):
            return
        folder = run_folder(trainer)
        collapsed = False
        if trainer.is_global_zero:
            log_scalars(trainer, self.scalars(pl_module))
            self._draw(trainer, pl_module, folder)
            collapsed = self.collapsed(pl_module)
            self._previous = self.filters(pl_module).clone()
        if trainer.strategy.broadcast(collapsed):
            self._react(trainer)

    def _draw(self, trainer: L.Trainer, module: L.LightningModule, folder: Path) -> None:
        images = filter_images(self.filters(module))
        if images is None:
            return
        figure = draw_filters(images)
        log_figure(trainer, "filters", figure)
        keep_figure(trainer, folder, "filters", figure)

    def _is_due(self, trainer: L.Trainer) -> bool:
        phases, done = phases_of(trainer), trainer.current_epoch + 1
        learning = 0 if phases is None else phases.filter_epochs
        if learning and done >= learning:
            return done == learning  # the filters are what they will be
        return done % self.every_n_epochs == 0

    def collapsed(self, module: L.LightningModule) -> bool:
        """Whether one unit has taken all patches from the others."""
        filters = self.filters(module)
        return positive_share(filters) < self.threshold and negative_share(filters) > _LOST

    def scalars(self, module: L.LightningModule) -> dict[str, float]:
        """What is logged of the module as it is now, by name."""
        filters = self.filters(module)
        p = self._exponent(module)
        converged = converged_filters(filters, p, self.tolerance)
        values = {
            "filters/f_score": converged.double().mean().item(),
            "filters/negative": negative_share(filters),
        }
        if self._previous is not None:
            change = (filters - self._previous).flatten(1).norm(dim=1)
            sizes = self._previous.flatten(1).norm(dim=1).clamp(min=torch.finfo(change.dtype).tiny)
            values["filters/largest_change"] = (change / sizes).max().item()
        if self._images is not None:
            activities = self._activities(module, self._images)
            for name, chosen in (("converged", converged), ("unconverged", ~converged)):
                if chosen.any():
                    values[f"filters/activity_{name}"] = activities[chosen].mean().item()
        return values

    @torch.no_grad()
    def _activities(self, module: L.LightningModule, images: Tensor) -> Tensor:
        """The mean activity of each filter over images and positions, (F,)."""
        respond = currents_of(module)
        assert respond is not None
        currents, p = respond(images), self._exponent(module)
        norms = self.filters(module).flatten(1).norm(p=p, dim=1)
        return currents.float().transpose(0, 1).flatten(1).mean(dim=1) / norms.pow(p - 1)

    def _exponent(self, module: L.LightningModule) -> float:
        p = norm_exponent(module) if self.p is None else self.p
        assert p is not None
        return float(p)

    def _react(self, trainer: L.Trainer) -> None:
        message = (
            f"the filters have collapsed at epoch {trainer.current_epoch}: one unit wins every patch and "
            "drives the others to all-negative filters; lower delta, lower the filters' learning rate or "
            "enlarge the batch"
        )
        if self.on_collapse == "raise":
            raise CollapsedError(message)
        if self.on_collapse == "stop":
            trainer.should_stop = True
            message += "; training stops"
        if not self._warned:
            rank_zero_warn(message)
        self._warned = True


def _begins_with_images(batch: Any) -> Tensor:
    """The first element of a batch.

    Raises:
        SettingError: if that is no tensor.
    """
    if isinstance(batch, tuple | list) and batch and isinstance(batch[0], Tensor):
        return batch[0]
    kind = f"batches of {sorted(batch)}" if isinstance(batch, dict) else type(batch).__name__
    raise SettingError("FScore.unpack_batch", None, f"must be a callable that takes {kind} to (images, ...)")
