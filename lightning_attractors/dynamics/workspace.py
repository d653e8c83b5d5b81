"""Reuse of large CPU buffers between training steps."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

_CAPACITY = 8


class Workspace:
    """A pool of CPU buffers that survive from one backward pass to the next forward pass.

    The history of an integration is tens of megabytes, which the C allocator returns to the system after
    every step and faults in again, page by page, on the next. Other devices cache by themselves. The pool
    keeps the eight buffers returned last.

    A buffer saved for backward and taken again before its graph was used a second time fails loudly: the
    writes raise its version, and autograd refuses it.
    """

    def __init__(self) -> None:
        self._free: deque[Tensor] = deque(maxlen=_CAPACITY)

    def take(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised tensor, from the pool if one of that shape and type is there."""
        for index, buffer in enumerate(self._free):
            if buffer.shape == shape and buffer.dtype == dtype and buffer.device == device:
                del self._free[index]
                return buffer
        return torch.empty(shape, dtype=dtype, device=device)

    def give_back(self, buffer: Tensor) -> None:
        """Hand a buffer back; its contents may be overwritten from now on."""
        # A graph that is used twice hands its buffers back twice.
        known = {free.data_ptr() for free in self._free}
        if buffer.device.type == "cpu" and buffer.data_ptr() not in known:
            self._free.append(buffer)
