"""Where the host waits for a device: recorded operation by operation, also on a machine without one.

On a CPU nothing waits. What would on a device is known by its operation: it reads a value, or has as many
results as values say, or copies between host and device from memory that is not pinned.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
import torchmetrics
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import lightning_attractors

OURS = Path(lightning_attractors.__file__).parent
# What is blamed for its own waits, though this package calls it.
_THEIRS = [Path(module.__file__).parent for module in (lightning, torchmetrics, torch.optim)]
# Operations that read values of a device, by their names in torch.ops.aten; those of linalg look for errors.
_READING = {
    *("_local_scalar_dense", "is_nonzero", "equal", "item", "nonzero", "masked_select", "bincount"),
    *("_unique2", "unique_dim", "unique_consecutive", "repeat_interleave", "_linalg_check_errors"),
    *("linalg_eig", "_linalg_eigvals", "linalg_eigvals", "_linalg_eigh", "linalg_lstsq"),
}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
# Functions that read a tensor on the host without an operation, where they find it there.
_TO_HOST = {"tolist", "numpy", "cpu", "__array__"}
# Functions that make a tensor of numbers of the host.
_FROM_HOST = {"tensor", "as_tensor", "asarray", "new_tensor"}


@contextmanager
def recorded_waits(places: list[str]) -> Iterator[None]:
    """Append to ``places`` where a device would be waited for while this lasts."""
    with _Functions(places), _Operations(places):
        yield


class _Operations(TorchDispatchMode):
    def __init__(self, places: list[str]) -> None:
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in _INDEXING and _by_mask(args[1])
        if name in _READING or masked or _between_devices(name, args, kwargs):
            self.places.append(place(name))
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __init__(self, places: list[str]) -> None:
        super().__init__()
        self.places = places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        numbers = args and not isinstance(args[0], Tensor)
        if name in _TO_HOST or (name in _FROM_HOST and numbers and kwargs.get("device") is not None):
            self.places.append(place(name))
        return func(*args, **kwargs)


def place(name: str) -> str:
    """The innermost frame that is to blame: ours as file:line function, another's as its package."""
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(OURS):
            return f"{file.relative_to(OURS)}:{frame.f_lineno} {frame.f_code.co_name} ({name})"
        for package in _THEIRS:
            if file.is_relative_to(package):
                return f"{package.name}: {file.name}:{frame.f_lineno} ({name})"
        frame = frame.f_back  # type: ignore[assignment]
    return f"elsewhere ({name})"


def _by_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _between_devices(name: str, args: Any, kwargs: Any) -> bool:
    if name == "_to_copy":
        device = (kwargs or {}).get("device")
        return device is not None and torch.device(device).type != args[0].device.type
    return name == "copy_" and args[0].device.type != args[1].device.type
