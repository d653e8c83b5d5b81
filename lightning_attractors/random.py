"""Random numbers that are a function of a key, so that a resumed run repeats an uninterrupted one."""

from __future__ import annotations

import numpy as np
import torch


def keyed_generator(device: torch.device, *key: int) -> torch.Generator:
    """A generator whose state is a function of the key only; the numbers are hashed, not added.

    Args:
        device: where it draws.
        key: non-negative integers, such as a seed, a rank and a step.
    """
    # The length too: SeedSequence ignores trailing zeros.
    seed = int(np.random.SeedSequence([len(key), *key]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed & (2**63 - 1))
