"""What data modules, data sets and loaders say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import RandomSampler, Subset


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


def batch_size_of(data: Any) -> int | None:
    """The batch size of a data module or a loader, if it has one."""
    size: int | None = getattr(data, "batch_size", None)
    return size


def class_names_of(data: Any) -> list[str]:
    """The names of a data module's classes, or none."""
    names = getattr(data, "class_names", None)
    return [] if names is None else [str(name) for name in names]


def data_name(data: Any) -> str:
    """What a data module's data are called: by its ``name``, else after its class; empty for none."""
    name = getattr(data, "name", None)
    if data is None or isinstance(name, str):
        return name or ""
    return type(data).__name__.removesuffix("DataModule") or type(data).__name__


def files_of(loader: Any) -> list[str] | None:
    """The files of a loader's images, in the order in which it serves them, or None where it does not say.

    A data set says so by ``files``, a list of paths, or as torchvision's ``ImageFolder`` by ``samples``, of
    which each begins with one; a ``Subset`` of such a data set by its ``indices``.
    """
    if any(isinstance(sampler, RandomSampler) for sampler in samplers_of(loader)):
        return None
    return _files(getattr(loader, "dataset", None))


def _files(dataset: Any) -> list[str] | None:
    if isinstance(dataset, Subset):
        whole = _files(dataset.dataset)
        return whole and [whole[index] for index in dataset.indices]
    files, samples = getattr(dataset, "files", None), getattr(dataset, "samples", None)
    if files is None and isinstance(samples, list):
        files = [sample[0] for sample in samples]
    return None if files is None else [str(file) for file in files]


def samplers_of(loader: Any) -> list[Any]:
    """What chooses the examples of a loader: its sampler, and that within its batch sampler."""
    holders: tuple[Any, ...] = (loader, getattr(loader, "batch_sampler", None))
    return [holder.sampler for holder in holders if hasattr(holder, "sampler")]
