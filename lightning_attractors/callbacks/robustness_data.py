"""Where a robustness curve gets its images from, whatever the project gives them as."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from lightning_attractors.errors import SettingError, require

Split = Literal["test", "val"]
Batch = tuple[int, Tensor, Tensor]


def has_images(trainer: L.Trainer, split: Split) -> bool:
    """Whether the trainer knows where images of the split come from."""
    return _source(trainer, split).is_defined()


def batches(
    trainer: L.Trainer, split: Split, unpack: Callable[[Any], tuple[Tensor, Tensor]], size: int, most: int
) -> Iterator[Batch]:
    """The images of a split in new batches, in the order of its loaders.

    Every rank sees all batches: Lightning's own way of sharing them out repeats images.

    Args:
        trainer: one that is fitting or testing.
        split: whose images.
        unpack: takes a batch of the loader to images and labels.
        size: how many images there are in a batch, the last one excepted.
        most: how many images there are at most.

    Yields:
        Number of the batch, images (B, C, H, W) and labels (B,), on the CPU.
    """
    left, number, kept = most, 0, list[tuple[Tensor, Tensor]]()
    for images, labels in _unpacked(trainer, split, unpack):
        kept.append((images[:left], labels[:left]))
        left -= len(kept[-1][0])
        while sum(len(part) for part, _ in kept) >= size or (left == 0 and kept):
            images, labels = (torch.cat(parts) for parts in zip(*kept, strict=True))
            yield number, images[:size], labels[:size]
            number += 1
            kept = [(images[size:], labels[size:])] if len(images) > size else []
        if left == 0:
            return
    if kept:
        yield number, *(torch.cat(parts) for parts in zip(*kept, strict=True))  # type: ignore[misc]


def first_images(
    trainer: L.Trainer, split: Split, unpack: Callable[[Any], tuple[Tensor, Tensor]], most: int
) -> tuple[Tensor, Tensor]:
    """At most so many images of the first batch of the split's loader, and their labels."""
    for images, labels in islice(_unpacked(trainer, split, unpack), 1):
        return images[:most], labels[:most]
    raise SettingError("split", split, "must have images")


def pairs(batch: Any) -> tuple[Tensor, Tensor]:
    """Images and labels of a batch that begins with them.

    Raises:
        SettingError: if it does not.
    """
    fits = isinstance(batch, tuple | list) and len(batch) >= 2
    if not (fits and isinstance(batch[0], Tensor) and isinstance(batch[1], Tensor)):
        kind = f"batches of {sorted(batch)}" if isinstance(batch, dict) else type(batch).__name__
        raise SettingError("unpack_batch", None, f"must be a callable that takes {kind} to images and labels")
    return batch[0], batch[1]


def _unpacked(
    trainer: L.Trainer, split: Split, unpack: Callable[[Any], tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    for loader in CombinedLoader(_source(trainer, split).dataloader(), "sequential").flattened:
        _require_whole(loader, split)
        with _same_state(loader):
            for batch in loader:
                images, labels = unpack(_transferred(trainer, split, batch))
                valid = isinstance(images, Tensor) and images.ndim == 4 and labels.shape == images.shape[:1]
                shown = [getattr(images, "shape", None), getattr(labels, "shape", None)]
                require(valid, "unpack_batch", shown, "must give images (B, C, H, W) and labels (B,)")
                yield images.detach().float().cpu(), labels.detach().long().cpu()


def _require_whole(loader: Any, split: Split) -> None:
    """Refuse a loader that has only the images of this rank: they are shared out here."""
    for holder in (loader, getattr(loader, "batch_sampler", None)):
        sampler = getattr(holder, "sampler", None)
        shares = sampler.num_replicas if isinstance(sampler, DistributedSampler) else 1
        valid = f"must not share out the images of the {split} loader; leave that to the trainer"
        require(shares == 1, "sampler", type(sampler).__name__, valid)


def _transferred(trainer: L.Trainer, split: Split, batch: Any) -> Any:
    """The batch as the split's own loop has it, after the hooks: these may ask for the stage to augment."""
    state = trainer.state
    before = state.stage
    state.stage = RunningStage.VALIDATING if split == "val" else RunningStage.TESTING
    try:
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)
    finally:
        state.stage = before


def prepare(trainer: L.Trainer, split: Split) -> None:
    """Have a data module load a split that the present stage does not need."""
    stage = "validate" if split == "val" else "test"
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    fitting = trainer.state.fn == "fit"
    if datamodule is not None and (split == "test") == fitting:
        datamodule.setup(stage)


def _source(trainer: L.Trainer, split: Split) -> Any:
    # The loaders that Lightning itself holds have been cut for their rank
    return (trainer.test_loop if split == "test" else trainer.validate_loop)._data_source


@contextmanager
def _same_state(loader: Any) -> Iterator[None]:
    """A loader's own generator is afterwards in the state it was in."""
    generator = loader.generator if isinstance(loader, DataLoader) else None
    state = None if generator is None else generator.get_state()
    try:
        yield
    finally:
        if generator is not None and state is not None:
            generator.set_state(state)
