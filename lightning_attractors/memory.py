"""Whether what a setting asks for fits into memory, said before anything is allocated."""

from __future__ import annotations

from typing import Any

import torch

from lightning_attractors.errors import require
from lightning_attractors.process import physical_memory

_BYTES = 2  # of the smallest numbers that anything is computed with


def require_memory(
    setting: str, value: Any, numbers: float, device: torch.device | None = None, size: int = _BYTES
) -> None:
    """Refuse a setting that needs more numbers at once than the memory can hold.

    Args:
        setting: its name.
        value: its value.
        numbers: how many numbers there will be.
        device: where they will be; by default the CPU.
        size: bytes of each; by default those of the smallest.

    Raises:
        SettingError: naming the setting, what it needs and what there is.
    """
    on_device = device is not None and device.type == "cuda"
    there = torch.cuda.get_device_properties(device).total_memory if on_device else physical_memory()
    if there is None:
        return
    needed = size * numbers
    valid = f"must be smaller: it needs {needed / 2**30:,.0f} GiB, and there are {there / 2**30:,.0f}"
    require(needed <= there, setting, value, valid)
