"""Where the images of a data set come from, if it says."""

from __future__ import annotations

from typing import Any

from torch.utils.data import RandomSampler, Subset

from lightning_attractors.contracts.lookups import samplers_of


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
