"""Checkpoints read as data: whatever types a file names, nothing but tensors and plain values is made."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

# What torch raises at a file that is damaged, or that it has not written.
UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
)


class _Container(type):
    """Of a class that torch takes for one of the dictionaries that it fills."""

    def __eq__(cls, other: object) -> bool:
        return cls is other or other is OrderedDict

    __hash__ = type.__hash__


class Unread(list[Any], metaclass=_Container):
    """Stands where a checkpoint holds an object of a type that torch does not make by itself."""

    def __new__(cls, *arguments: Any, **named: Any) -> Unread:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...


def foreign_types(path: str | Path) -> list[str]:
    """The types and functions that a checkpoint names and that torch does not load by itself, sorted."""
    return sorted(get_unsafe_globals_in_checkpoint(path))


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> Any:
    """The content of a checkpoint, with an :class:`Unread` for every object of a foreign type.

    Args:
        path: a file that ``torch.save`` has written.
        map_location: as for ``torch.load``.

    Raises:
        pickle.UnpicklingError: if it is beyond that too, as lists of a foreign type are for torch 2.9.
    """
    strangers: list[Any] = [(Unread, name) for name in foreign_types(path)]
    with safe_globals(strangers):
        return torch.load(path, map_location=map_location, weights_only=True)
