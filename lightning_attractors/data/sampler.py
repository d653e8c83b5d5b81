"""The order in which training images are visited."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from torch.utils.data import RandomSampler

from lightning_attractors.data.generators import Stream, keyed_generator


class EpochRandomSampler(RandomSampler):
    """A random order that is a function of (seed, epoch) only, so that a resumed run repeats it.

    Lightning calls :meth:`set_epoch` before every epoch. Being a ``RandomSampler``, it is replaced by a
    shuffling ``DistributedSampler`` when there is more than one process.

    Args:
        data_source: what is sampled from; only its length counts, which is at least 1.
        seed: seed of the order, at least 0.
    """

    def __init__(self, data_source: Sized, seed: int = 0) -> None:
        super().__init__(data_source)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of epoch ``epoch``, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        # Lightning makes the first iterator before it sets the epoch: a generator draws only when asked
        generator = keyed_generator(Stream.ORDER, self.seed, self.epoch)
        yield from generator.permutation(len(self.data_source)).tolist()
