"""What models are told of by the data: by their attributes, or else by their first batch."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jsonargparse import Namespace
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_attractors.cli.usage import class_at
from lightning_attractors.contracts import classes_of, labels_of, linked_of
from lightning_attractors.process import one_at_a_time

LINKED = ("num_classes", "image_shape")


class Seen(NamedTuple):
    """What a training set and its first batch show.

    Attributes:
        image_shape: (C, H, W).
        num_classes: K, or of the first batch one more than the largest label.
        by_batch: whether there is nothing but the first batch that the number of classes is known from.
    """

    image_shape: tuple[int, ...]
    num_classes: int
    by_batch: bool


def told(name: str, data: LightningDataModule | None, model: Namespace) -> Any:
    """The value that a model's setting is to have: the data's, or what is configured where it has none.

    Args:
        name: one of ``LINKED``.
        data: the data module, or None.
        model: the model's config, with ``class_path`` and ``init_args``.
    """
    given = (model.get("init_args") or {}).get(name)
    known = linked_of(data, name)
    if known is not None or data is None or given != _default(model.class_path, name):
        return given if known is None else known
    if (seen := look(data)) is None:
        return given
    if name == "image_shape":
        return seen.image_shape
    if seen.by_batch:
        valid = "give it num_classes if there are more"
        text = f"{type(data).__name__} does not say num_classes: the first batch has {seen.num_classes}"
        rank_zero_warn(f"{text}; {valid}")
    return seen.num_classes


@lru_cache(maxsize=1)
def look(data: LightningDataModule) -> Seen | None:
    """What a data module's training set shows; None where no batch can be had, or it is of another kind."""
    try:
        with isolate_rng():
            with one_at_a_time("prepare_data"):
                data.prepare_data()
            data.setup("fit")
            loader = data.train_dataloader()
            images, labels = next(iter(loader))
    except Exception:  # whatever a stranger's raises: what is wrong is said where the trainer asks for it
        return None
    fits = isinstance(images, Tensor) and isinstance(labels, Tensor) and images.ndim == 4 and labels.ndim == 1
    if not fits or labels.is_floating_point() or len(labels) == 0:
        return None
    names, everything = classes_of(loader.dataset), labels_of(loader.dataset)
    largest = int(labels.max() if everything is None else np.asarray(everything).max())
    count = len(names) if names and len(names) > largest else largest + 1
    return Seen(tuple(images.shape[1:]), count, names is None and everything is None)


def _default(class_path: str, name: str) -> Any:
    parameter = inspect.signature(class_at(class_path)).parameters.get(name)
    return None if parameter is None else parameter.default
