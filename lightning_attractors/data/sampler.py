"""The order in which training images are visited, by one process or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from itertools import cycle, islice
from typing import Any

from torch.utils.data import DistributedSampler, RandomSampler

from lightning_attractors.data.generators import Stream, keyed_generator


class EpochRandomSampler(RandomSampler):
    """A random order that is a function of (seed, epoch) only, so that a resumed run repeats it.

    Being a ``RandomSampler``, it is replaced by a shuffling ``DistributedSampler`` when Lightning runs more
    than one process, and that by :class:`EpochShareSampler`. It asks for the epoch instead of having a
    ``set_epoch``: what Lightning passes there is one too many after resuming, from the end of an epoch, a run
    that is limited by ``max_steps``.

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


class EpochShareSampler(DistributedSampler[Any]):
    """Every process's share of that order: of each global batch the one that a single process has.

    As long as a ``DistributedSampler``, which it takes the place of: the last images are filled up with the
    first, since steps of training wait for each other.

    Args:
        order: the order of all images, the same on all processes.
        rank: of this process, from 0 to ``world_size`` − 1.
        world_size: number of processes, at least 1.

    Example:
        >>> order = EpochRandomSampler(range(5), seed=0, epoch=int)
        >>> list(order), [list(EpochShareSampler(order, rank, 2)) for rank in range(2)]
        ([4, 0, 1, 2, 3], [[4, 1, 3], [0, 2, 4]])
    """

    def __init__(self, order: EpochRandomSampler, rank: int, world_size: int) -> None:
        super().__init__(order.data_source, world_size, rank)  # type: ignore[arg-type]
        self.order = order

    def __iter__(self) -> Iterator[int]:
        return islice(cycle(self.order), self.rank, self.total_size, self.num_replicas)
