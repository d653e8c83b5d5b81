"""Small things that all reports are made of."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, and is installed."""
    found = {"python": platform.python_version()}
    for name in ("lightning-attractors", "lightning", "torch", "torchattacks"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def spread(radii: Tensor) -> Tensor:
    """Strengths from 0 to the largest finite radius, or to 1 without one above 0, shape (101,), float64."""
    finite = radii[radii.isfinite()]
    largest = float(finite.max()) if len(finite) else 0.0
    return torch.linspace(0, largest or 1.0, 101, dtype=torch.float64)


def share(held: Tensor) -> Tensor:
    """The share of the columns of every row (S, N), shape (S,), float64; nan without any."""
    return held.double().mean(dim=1)


def median(radii: Tensor) -> float | None:
    return float(radii.median()) if len(radii) else None


def json_ready(value: Any) -> Any:
    """The value with null for what JSON has no number for, and lists for tuples."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
