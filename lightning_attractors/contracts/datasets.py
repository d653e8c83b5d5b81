"""What data that are not ours say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def labels_of(dataset: Any) -> Sequence[int] | None:
    """The labels of a data set as torchvision's have them, under either name; None where it has none."""
    for name in ("targets", "labels", "_labels"):
        labels: Sequence[int] | None = getattr(dataset, name, None)
        if labels is not None:
            return labels
    return None


def classes_of(dataset: Any) -> list[str] | None:
    """The names of a data set's classes, in the order of the labels; None where it has none.

    A part of another data set, such as ``torch.utils.data.Subset``, has those of the other.
    """
    classes = getattr(dataset, "classes", None)
    if classes is None and (whole := getattr(dataset, "dataset", None)) is not None:
        return classes_of(whole)
    return [str(name) for name in classes] if isinstance(classes, list | tuple) else None


def linked_of(data: Any, name: str) -> Any:
    """What a data module says under the name of a model's setting, such as ``num_classes``, or None."""
    return getattr(data, name, None)
