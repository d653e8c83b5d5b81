"""The two errors that a user of this package is meant to read: each is one line long."""

from __future__ import annotations

import copyreg
from typing import Any


class SettingError(ValueError):
    """A setting has a value that cannot work.

    Args:
        setting: the setting's name as the user wrote it, for example ``"dt"``.
        value: the value that was given.
        valid: what would be valid, as a phrase, for example ``"must be above 0"``.
    """

    def __init__(self, setting: str, value: Any, valid: str) -> None:
        shown = " ".join(repr(value).split())
        super().__init__(f"{setting}={shown}: {valid}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes goes the message alone: the value need not be picklable
        return copyreg.__newobj__, (type(self), str(self))  # type: ignore[attr-defined]


class NonFiniteError(ArithmeticError):
    """Training produced a loss or a state that is not finite, and was stopped."""


def require(condition: bool, setting: str, value: Any, valid: str) -> None:
    """Raise :class:`SettingError` unless ``condition`` holds.

    Raises:
        SettingError: naming the setting, its value and what would be valid.
    """
    if not condition:
        raise SettingError(setting, value, valid)
