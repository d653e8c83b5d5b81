"""The order in which training images are visited."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized

from torch.utils.data import RandomSampler

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
