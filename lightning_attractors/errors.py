"""The two errors that a user of this package is meant to read: each is one line long."""

from __future__ import annotations

import copyreg
import math
from typing import Any

# The squares and products of such values still are numbers of float32.
_SMALLEST, _LARGEST = 1e-12, 1e12


class SettingError(ValueError):
    """A setting has a value that cannot work.

    Args:
        setting: the setting's name as the user wrote it, for example ``"dt"``.
        value: the value that was given.
        valid: what would be valid, as a phrase, for example ``"must be above 0"``.
    """

    def __init__(self, setting: str, value: Any, valid: str) -> None:
        super().__init__(f"{setting}={one_line(repr(value))}: {valid}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes goes the message alone: the value need not be picklable
        return copyreg.__newobj__, (type(self), str(self))  # type: ignore[attr-defined]


class NonFiniteError(ArithmeticError):
    """Training produced a loss or a state that is not finite, and was stopped."""


def one_line(text: object) -> str:
    """What something says of itself, such as an exception, on one line."""
    return " ".join(str(text).split())


def require(condition: bool, setting: str, value: Any, valid: str) -> None:
    """Raise :class:`SettingError` unless ``condition`` holds.

    Raises:
        SettingError: naming the setting, its value and what would be valid.
    """
    if not condition:
        raise SettingError(setting, value, valid)


def require_sensible(setting: str, value: float) -> None:
    """Raise :class:`SettingError` unless a value is above 0 and of a size that float32 can work with.

    Raises:
        SettingError: naming the setting.
    """
    require(0 < value < math.inf, setting, value, "must be finite and above 0")
    valid = f"must be from {_SMALLEST:g} to {_LARGEST:g}: beyond, float32 sees it as nothing or as infinite"
    require(_SMALLEST <= value <= _LARGEST, setting, value, valid)
