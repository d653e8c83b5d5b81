"""Random generators keyed by what they are for, so that no state has to be carried or restored."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What random numbers are for: streams of different purpose never coincide by arithmetic."""

    ORDER = 1
    BATCH = 2
    FIXED_NOISE = 3
    VALIDATION_SPLIT = 4


def keyed_generator(stream: Stream, *key: int) -> np.random.Generator:
    """A fresh generator whose state is a function of the stream and the key only.

    The numbers are hashed together, not added, so that (seed 0, epoch 1) and (seed 1, epoch 0) differ.
    Global generators are neither read nor advanced.

    Args:
        stream: what the numbers are for.
        key: non-negative integers, for example ``seed, epoch``; always as many for the same stream.

    Returns:
        The generator.
    """
    return np.random.default_rng([stream, *key])
