"""What noise is drawn for."""

from __future__ import annotations

from enum import IntEnum


class NoiseStream(IntEnum):
    """Streams of random numbers, of which those of different purpose never coincide."""

    TRAIN = 1
    VALIDATION = 2
    TEST = 3
    FORWARD = 4
