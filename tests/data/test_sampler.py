"""The order in which training images come."""

from __future__ import annotations

from clocks import Clock
from torch.utils.data import RandomSampler

from lightning_attractors.data.sampler import EpochRandomSampler


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    clock = Clock()
    sampler = EpochRandomSampler(range(50), 3, clock)
    first = list(sampler)
    assert sorted(first) == list(range(50))
    assert list(sampler) == first
    clock.now = 1
    assert list(sampler) != first
    clock.now = 0
    assert list(sampler) == first
    assert list(EpochRandomSampler(range(50), 4, clock)) != first


def test_the_epoch_counts_when_the_first_index_is_drawn() -> None:
    clock = Clock()
    sampler = EpochRandomSampler(range(50), 0, clock)
    early = iter(sampler)
    clock.now = 5
    assert list(early) == list(sampler)


def test_lightning_takes_the_sampler_for_a_shuffling_one() -> None:
    sampler = EpochRandomSampler(range(50), 0, Clock())
    assert isinstance(sampler, RandomSampler)
    assert len(sampler) == 50
