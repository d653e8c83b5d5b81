"""How many threads suit a model."""

from __future__ import annotations

import os

import torch
from torch import nn

from lightning_attractors.linalg import has_small_products


def suit_threads(module: nn.Module) -> None:
    """Compute on one thread where the model is so small that more of them only wait for each other.

    That is the same speed alone, and the full speed beside other processes. The model's size decides and not
    a measurement, since the bits of a sum depend on the number of threads. ``OMP_NUM_THREADS`` has the last
    word.

    Args:
        module: whose largest weight, with a batch of 256, decides: up to 128 × 128 take one thread,
            unless there are kernels.
    """
    if "OMP_NUM_THREADS" not in os.environ and has_small_products(module):
        torch.set_num_threads(1)
