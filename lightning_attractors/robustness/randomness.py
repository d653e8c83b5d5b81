"""Random numbers that are a function of a key, and everybody else's left as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(key: Sequence[int]) -> int:
    """One number, below 2³², from several."""
    return int(np.random.SeedSequence(list(key)).generate_state(1)[0])


def seed_all(key: Sequence[int]) -> None:
    """Make the global random numbers of torch, NumPy and Python a function of the key."""
    number = seed_of(key)
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


@contextmanager
def unchanged_random_numbers() -> Iterator[None]:
    """Afterwards the global random numbers of torch, on all devices, NumPy and Python go on as before."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)
