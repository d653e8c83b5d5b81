"""The order in which training images are visited, and how evaluation shares its images out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any

from torch.utils.data import DistributedSampler, RandomSampler

from lightning_attractors.data.generators import Stream, keyed_generator


class EpochRandomSampler(RandomSampler):
    """A random order that is a function of (seed, epoch) only, so that a resumed run repeats it.

    Being a ``RandomSampler``, it is replaced by a shuffling ``DistributedSampler`` when Lightning runs more
    than one process. It asks for the epoch instead of having a ``set_epoch``: what Lightning passes there is
    one too many after resuming, from the end of an epoch, a run that is limited by ``max_steps``.

    Args:
        data_source: what is sampled from; only its length counts, which is at least 1.
        seed: seed of the order, at least 0.
        epoch: gives the current epoch; asked when the first index of an epoch is drawn.
    """

    def __init__(self, data_source: Sized, seed: int, epoch: Callable[[], int]) -> None:
        super().__init__(data_source)
        self.seed = seed
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = keyed_generator(Stream.ORDER, self.seed, self.epoch())
        yield from generator.permutation(len(self.data_source)).tolist()


class ShareSampler(DistributedSampler[Any]):
    """Every process's share of the indices, in order: rank, rank + world size, and so on, none of them twice.

    Shares may differ by one: what a step does must not wait for other processes. Of fewer images than
    processes each has all, which leaves averages as they are; Lightning hangs where one process has none.

    Being a ``DistributedSampler``, it is left in place by Lightning.

    Args:
        data_source: what is sampled from; only its length counts.
        rank: of this process, from 0 to ``world_size`` − 1.
        world_size: number of processes, at least 1.

    Example:
        >>> [list(ShareSampler(range(5), rank, 2)) for rank in range(2)]
        [[0, 2, 4], [1, 3]]
    """

    def __init__(self, data_source: Any, rank: int, world_size: int) -> None:
        super().__init__(data_source, world_size, rank, shuffle=False)
        count = len(data_source)
        self.share = range(rank, count, world_size) if count >= world_size else range(count)

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)

    def __len__(self) -> int:
        return len(self.share)
