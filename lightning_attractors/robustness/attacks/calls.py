"""Attacks of somebody else's making: what can be called as one, and whether it gives images."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lightning_attractors.errors import SettingError, require
from lightning_attractors.extras import load_extra
from lightning_attractors.robustness.attacks.base import Logits
from lightning_attractors.robustness.corruptions import Corruption

_ATTACK = ("logits_fn", "images", "labels", "strength")
_CORRUPTION = ("images", "strength", "generator")


class CallableAttack:
    """An attack as a plain callable, ``(logits_fn, images, labels, strength) -> images``.

    ``logits_fn`` gives the logits (B, K) of images, differentiably; images (B, C, H, W) lie in [0, 1], and so
    must what comes back, of the same shape. The global random numbers of torch, NumPy and Python are the same
    in every run, and at every strength; a parameter ``key`` is given the integers that they come from.

    Args:
        name: what it is called in messages.
        attack: the callable.
        arguments: further arguments of it, by name.

    Raises:
        SettingError: if the callable cannot be called like that.
    """

    def __init__(self, name: str, attack: Any, arguments: Mapping[str, Any]) -> None:
        self.name, self.attack, self.arguments = name, attack, dict(arguments)
        _require_call(name, attack, _ATTACK, arguments)
        self.keyed = "key" in _parameters(attack)

    def __call__(
        self, logits_fn: Logits, images: Tensor, labels: Tensor, strength: float, key: Sequence[int]
    ) -> Tensor:
        """The attacked images.

        Raises:
            SettingError: if they have another shape, or leave [0, 1].
        """
        keyed = {"key": key} if self.keyed else {}
        moved: Tensor = self.attack(logits_fn, images, labels, strength, **keyed, **self.arguments)
        require_shape(self.name, moved, images)
        ends = [float(end) for end in moved.detach().aminmax()]
        inside = ends[0] >= 0 and ends[1] <= 1
        require(
            inside, "attacks", self.name, f"must give images from 0 to 1, not from {ends[0]} to {ends[1]}"
        )
        return moved


class CorruptionAttack:
    """A corruption, ``(images, strength, generator) -> images``, as an attack that looks at no logits.

    Args:
        name: what it is called in messages.
        corruption: one of :data:`~lightning_attractors.robustness.CORRUPTIONS`, or a function like them; it
            works on the CPU and on float32, and may leave [0, 1].
        arguments: further arguments of it, by name.

    Raises:
        SettingError: if it cannot be called like that.
    """

    def __init__(self, name: str, corruption: Corruption, arguments: Mapping[str, Any]) -> None:
        self.name, self.corruption, self.arguments = name, corruption, dict(arguments)
        _require_call(name, corruption, _CORRUPTION, arguments)

    def __call__(
        self, logits_fn: Logits, images: Tensor, labels: Tensor, strength: float, key: Sequence[int]
    ) -> Tensor:
        """The corrupted images, with a generator that is a function of the key.

        Raises:
            SettingError: if they have another shape.
        """
        generator = np.random.default_rng(list(key))
        moved = self.corruption(images.cpu().float(), strength, generator, **self.arguments)
        require_shape(self.name, moved, images)
        return moved


def imported(path: str) -> Any:
    """What is found under an import path.

    Raises:
        SettingError: if there is nothing.
    """
    module, _, name = path.rpartition(".")
    if module.split(".")[0] == "torchattacks":
        load_extra("torchattacks", "attacks", path)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        valid = "must be the import path of an attack, such as torchattacks.PGD"
        raise SettingError("attacks", path, f"{valid} ({' '.join(str(error).split())})") from error


def is_corruption(found: Any) -> bool:
    """Whether a function takes a generator, as corruptions do and attacks do not."""
    return not inspect.isclass(found) and "generator" in _parameters(found)


def makes_attacks(found: Any) -> bool:
    """Whether the objects of a class can be called as attacks, with the strength as an argument."""
    own = next((vars(part)["__call__"] for part in found.__mro__ if "__call__" in vars(part)), None)
    return own is not None and not _misfit(own, ("self", *_ATTACK), {})


def require_shape(name: str, moved: Any, images: Tensor) -> None:
    """Refuse what is no batch of images like the one that an attack was given.

    Raises:
        SettingError: naming the attack.
    """
    fits = isinstance(moved, Tensor) and moved.shape == images.shape
    given = tuple(moved.shape) if isinstance(moved, Tensor) else type(moved).__name__
    valid = f"must give images of the shape {tuple(images.shape)} that it is given, not {given}"
    require(fits, "attacks", name, valid)


def _require_call(name: str, function: Any, given: tuple[str, ...], arguments: Mapping[str, Any]) -> None:
    require(callable(function), "attacks", function, "must be a name, an import path or a callable")
    parameters = _parameters(function)
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        known = [key for key in list(parameters)[len(given) :] if key != "key"]
        for argument in arguments:
            valid = f"is no argument of {name}; it has {', '.join(known) or 'no further ones'}"
            require(argument in known, "init_args", argument, valid)
    misfit = _misfit(function, given, arguments)
    require(not misfit, "attacks", name, f"must take ({', '.join(given)}) and give images: {misfit}")


def _misfit(function: Any, given: tuple[str, ...], arguments: Mapping[str, Any]) -> str:
    """Why a function cannot be called with positional arguments and some by name; empty if it can."""
    parameters = _parameters(function)
    named = [p.name for p in parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
    if named and len(named) < len(given):  # whatever else it would take: that has another meaning there
        return f"it takes ({', '.join(map(str, parameters.values()))})"
    try:
        keyed = {"key": ()} if "key" in parameters else {}
        inspect.signature(function).bind(*[None] * len(given), **keyed, **arguments)
    except TypeError as error:
        return str(error)
    except ValueError:  # some that are written in C do not say what they take
        return ""
    return ""


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
