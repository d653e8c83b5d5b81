"""Where the images of a data set come from, if it says."""

from __future__ import annotations

from typing import Any

from torch.utils.data import RandomSampler

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
    files = getattr(dataset, "files", None)
    if files is None:
        samples = getattr(dataset, "samples", None)
        paths = isinstance(samples, list) and all(isinstance(one, tuple) and one for one in samples)
        files = [one[0] for one in samples] if paths else None
    indices, whole = getattr(dataset, "indices", None), getattr(dataset, "dataset", None)
    if files is None and indices is not None and whole is not None:
        within = _files(whole)
        files = None if within is None else [within[index] for index in indices]
    return None if files is None else [str(file) for file in files]
