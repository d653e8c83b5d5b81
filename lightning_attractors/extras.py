"""Packages that only some settings need: loaded when one is used, or refused with what to install."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from lightning_attractors.errors import SettingError

# The extra of pyproject.toml that brings a package.
_EXTRAS = {"optuna": "sweep", "shtab": "completion", "torchattacks": "attacks", "torchdiffeq": "solvers"}


def load_extra(package: str, setting: str, value: Any) -> ModuleType:
    """A package of an extra.

    Args:
        package: its name.
        setting: what needs it, for a message.
        value: the value of that setting.

    Raises:
        SettingError: naming the setting and what to install, if there is no such package.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        valid = f"needs {package}: pip install 'lightning-attractors[{_EXTRAS[package]}]'"
        raise SettingError(setting, value, valid) from error
