"""Reuse of large CPU buffers between training steps."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

_CAPACITY = 8


class Workspace:
    """A pool of CPU buffers that survive from one training step to the next.

    The history of an integration is tens of megabytes, which the C allocator returns to the system after
    every step and faults in again, page by page, on the next. Other devices cache by themselves. The pool
    keeps the eight buffers returned last.
    """

    def __init__(self) -> None:
        self._free: deque[Tensor] = deque(maxlen=_CAPACITY)

    def lease(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Lease:
        """Lend an uninitialised tensor, from the pool if one of that shape and type is there.

        Compiled code has buffers of its own: a pool that changes from call to call is no constant of a graph.
        """
        if torch.compiler.is_compiling():
            return Lease(None, torch.empty(shape, dtype=dtype, device=device))
        for index, buffer in enumerate(self._free):
            if buffer.shape == shape and buffer.dtype == dtype and buffer.device == device:
                del self._free[index]
                return Lease(self, buffer)
        return Lease(self, torch.empty(shape, dtype=dtype, device=device))

    def _take_back(self, buffer: Tensor) -> None:
        if buffer.device.type == "cpu":
            self._free.append(buffer)


class Lease:
    """A buffer that belongs to whoever holds the lease, and returns to its pool with the last reference.

    Attributes:
        buffer: the tensor; keep the lease as long as it is in use.
    """

    # For leases that were never initialised, as torch.compile makes them while it traces.
    _workspace: Workspace | None = None

    def __init__(self, workspace: Workspace | None, buffer: Tensor) -> None:
        self._workspace = workspace
        self.buffer = buffer

    def __del__(self) -> None:
        if self._workspace is not None:
            self._workspace._take_back(self.buffer)
