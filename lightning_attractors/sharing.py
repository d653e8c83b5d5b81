"""How processes share out the images that they evaluate, so that each counts once."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DistributedSampler


def repeats_images(sampler: Any) -> bool:
    """Whether a sampler serves images twice, so that all processes have as many."""
    return isinstance(sampler, DistributedSampler) and sampler.total_size > _count(sampler)


def repeat_nothing(sampler: DistributedSampler[Any]) -> None:
    """Have the processes serve every image once, in place; shares then differ by one where they have to.

    Of fewer images than processes each serves all, which leaves averages as they are: Lightning hangs where
    one process has none.

    Args:
        sampler: of one process, and alike on all others; one that repeats nothing is left as it is.

    Example:
        >>> samplers = [DistributedSampler(range(5), 2, rank, shuffle=False) for rank in range(2)]
        >>> [list(sampler) for sampler in samplers]
        [[0, 2, 4], [1, 3, 0]]
        >>> for sampler in samplers:
        ...     repeat_nothing(sampler)
        >>> [list(sampler) for sampler in samplers]
        [[0, 2, 4], [1, 3]]
    """
    if repeats_images(sampler):
        count = _count(sampler)
        if count < sampler.num_replicas:
            sampler.num_replicas, sampler.rank = 1, 0
        sampler.total_size = count
        sampler.num_samples = len(range(sampler.rank, count, sampler.num_replicas))


def _count(sampler: DistributedSampler[Any]) -> int:
    return len(sampler.dataset)  # type: ignore[arg-type]
