from __future__ import annotations

from lightning_attractors.data.generators import Stream, keyed_generator


def test_keys_are_mixed_and_not_added() -> None:
    draws = {
        keyed_generator(stream, *key).random()
        for stream in (Stream.ORDER, Stream.BATCH)
        for key in [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0)]
    }
    assert len(draws) == 10
    assert keyed_generator(Stream.ORDER, 3, 4).random() == keyed_generator(Stream.ORDER, 3, 4).random()
