"""What a model predicts, as a table: image, class, how sure, and how far that is certified."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor

from lightning_attractors.callbacks.output import class_names, run_folder, write_atomically
from lightning_attractors.callbacks.radii_in_time import RadiiInTime
from lightning_attractors.callbacks.robustness_trainer import together
from lightning_attractors.contracts import files_of
from lightning_attractors.errors import require
from lightning_attractors.writing import csv_table

# Class, confidence, label and radius, by loader and place in it
_Rows = dict[tuple[int, int], tuple[Any, ...]]


class Predictions(BasePredictionWriter):
    """Writes ``predictions.csv`` into the run's folder after ``trainer.predict``, one row per image.

    Columns are ``index``, ``file`` where the data set says it (by ``files``, or as torchvision's by
    ``samples``), ``class``, the number of the predicted class, ``class_name``, ``confidence``, its softmax
    probability, ``label`` and ``label_name`` where batches have labels, and ``certified_radius`` where the
    module has ``certified_radii``: of the predicted class, and of images with pixels in [0, 1]. Names are
    those of the module or, where it has none, of the data module. Of several processes each predicts a share,
    and the rows are those of one process.

    Predictions are to be logits (B, K), and batches images, or to begin with images and labels.

    Args:
        seconds: time to spend on certified radii, in every process, at least 0; images that it was not enough
            for have none.

    Raises:
        SettingError: if a setting is out of range, or several processes predict and a loader does not say
            which images a batch has, as one that streams.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        require(seconds >= 0, "seconds", seconds, "must be at least 0")
        super().__init__(write_interval="batch")
        self.seconds = seconds

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._radii = RadiiInTime(trainer, pl_module, self.seconds)
        self._rows: _Rows = {}
        self._are_logits = True

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep the rows of a batch, each under its place in the table."""
        self._are_logits &= isinstance(prediction, Tensor) and prediction.ndim == 2
        if not self._are_logits:
            return
        confidence, classes = prediction.double().softmax(dim=1).max(dim=1)
        images, *rest = batch if isinstance(batch, tuple | list) else [batch]
        radii = torch.full(classes.shape, torch.nan)
        if isinstance(images, Tensor) and images.ndim == 4:
            radii = self._radii.of(images, classes)
        labels = rest[0].tolist() if rest and _are_labels(rest[0], classes) else [None] * len(classes)
        rows = list(zip(classes.tolist(), confidence.tolist(), labels, radii.tolist(), strict=True))
        places: Sequence[int] = range(len(self._rows), len(self._rows) + len(rows))  # as they are served
        if trainer.world_size > 1:
            places = batch_indices or []
            valid = "must be 1: a loader does not say which images a batch has"
            require(len(places) == len(rows), "trainer.devices", trainer.world_size, valid)
        self._rows |= zip([(dataloader_idx, place) for place in places], rows, strict=True)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        folder = run_folder(trainer)  # which all ranks have to ask for
        found = together(trainer, lambda: (self._rows, self._are_logits, self._radii.counts))
        if not trainer.is_global_zero:
            return
        rows = {place: row for one, *_ in found for place, row in one.items()}
        self._rows = {place: rows[place] for place in sorted(rows)}
        if not (self._rows and all(are_logits for _, are_logits, _ in found)):
            print("no predictions.csv: the model's predictions are not logits of shape (B, K)")
            return
        columns = self._columns(class_names(trainer), _files(trainer))
        path = folder / "predictions.csv"
        write_atomically(path, csv_table(list(columns), zip(*columns.values(), strict=True)))
        told = self._radii.told([counts for *_, counts in found])
        print(f"{len(self._rows)} predictions are in {path}{told and '; '}{told}")

    def _columns(self, names: Sequence[str], files: list[str]) -> dict[str, list[Any]]:
        """The table by column, without those that would be empty."""
        classes, confidence, labels, radii = (
            list(column) for column in zip(*self._rows.values(), strict=True)
        )
        columns: dict[str, list[Any]] = {
            "index": list(range(len(self._rows))),
            "file": files if len(files) == len(self._rows) else [],
            "class": classes,
            "class_name": _named(classes, names),
            "confidence": confidence,
            "label": labels,
            "label_name": _named(labels, names),
            "certified_radius": [None if math.isnan(radius) else radius for radius in radii],
        }
        return {name: column for name, column in columns.items() if any(one is not None for one in column)}


def _are_labels(given: Any, classes: Tensor) -> bool:
    return isinstance(given, Tensor) and given.shape == classes.shape and not given.is_floating_point()


def _named(classes: Sequence[int | None], names: Sequence[str]) -> list[str | None]:
    return [names[one] if one is not None and 0 <= one < len(names) else None for one in classes]


def _files(trainer: L.Trainer) -> list[str]:
    """The files of all images, or none where not every loader knows them."""
    loaders = CombinedLoader(trainer.predict_dataloaders, "sequential").flattened
    found = [files_of(loader) for loader in loaders]
    return [] if any(files is None for files in found) else [file for files in found for file in files or ()]
