"""Loaders: of training, which goes on in the middle of an epoch, and of evaluation, which repeats nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lightning_attractors.data.dataset import InMemoryDataset
from lightning_attractors.data.sampler import EpochRandomSampler, EpochShareSampler
from lightning_attractors.sharing import repeat_nothing


class ResumableLoader(DataLoader[tuple[Tensor, Tensor]]):
    """A ``DataLoader`` that passes over the batches which a run had finished before it was interrupted.

    Lightning hands a loader its state back when it resumes, and counts the finished batches itself. So the
    state is empty and its return is only the signal that the next epoch to be served may be a partial one:
    the order of the sampler and the changes made to the images depend on the epoch alone.

    Several processes have together the batches that one would have: in place of the shuffling
    ``DistributedSampler`` that Lightning puts into it stands the data set's own order, shared out.

    Args:
        batches_done: gives the number of batches of the current epoch that were finished.
        dataset: what is served; seed and epoch of its order are its own.
        sampler: chooses the images.
        kwargs: as for ``torch.utils.data.DataLoader``.
    """

    def __init__(
        self, batches_done: Callable[[], int], dataset: InMemoryDataset, sampler: Any = None, **kwargs: Any
    ) -> None:
        if isinstance(sampler, DistributedSampler) and sampler.shuffle:
            order = EpochRandomSampler(dataset, dataset.seed, dataset.epoch)
            sampler = EpochShareSampler(order, sampler.rank, sampler.num_replicas)
        super().__init__(dataset, sampler=sampler, **kwargs)
        self.batches_done = batches_done
        self._resuming = False

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:  # type: ignore[override]
        # a generator: Lightning makes the first iterator before its counters are those of the resumed run
        done = self.batches_done() if self._resuming else 0
        self._resuming = False
        yield from islice(super().__iter__(), done, None)

    def state_dict(self) -> dict[str, Any]:
        """Empty: see the class."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Serve the rest of the interrupted epoch first."""
        self._resuming = True


class EvaluationLoader(DataLoader[Any]):
    """A ``DataLoader`` in the order of the data, of which many processes see every image equally often.

    It is whole until Lightning puts a ``DistributedSampler`` into it, which repeats images until all
    processes have as many, so that averages count some of them twice. Here it is told to repeat nothing:
    what a step of evaluation does must not wait for other processes, since one may have a batch fewer.

    Args:
        dataset: what is served.
        sampler: chooses the images; all of them, in order, if not given.
        kwargs: as for ``torch.utils.data.DataLoader``.
    """

    def __init__(self, dataset: Dataset[Any], sampler: Any = None, **kwargs: Any) -> None:
        if isinstance(sampler, DistributedSampler):
            repeat_nothing(sampler)
        super().__init__(dataset, sampler=sampler, **kwargs)
