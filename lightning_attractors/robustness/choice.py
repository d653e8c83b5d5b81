"""Attacks from what a user writes: a name, an import path, or either with settings."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from lightning_attractors.errors import SettingError, require
from lightning_attractors.robustness.attacks import RadiusAttack, Search, SweepAttack
from lightning_attractors.robustness.corruptions import CORRUPTIONS, Corruption
from lightning_attractors.robustness.fgsm import fgsm_radii
from lightning_attractors.robustness.library import LibraryAttack
from lightning_attractors.robustness.pgd import pgd_radii
from lightning_attractors.robustness.targets import Logits

Attack = RadiusAttack | SweepAttack
SEARCHES: dict[str, Search] = {"fgsm_radius": fgsm_radii, "pgd_radius": pgd_radii}
_KEYS = ("class_path", "init_args", "strengths", "strength", "name")


def make_attacks(chosen: Sequence[str | dict[str, Any]], strengths: Sequence[float] | None) -> list[Attack]:
    """One attack for every entry, under names of their own.

    Args:
        chosen: ``fgsm_radius``, ``pgd_radius``, a name of
            :data:`~lightning_attractors.robustness.CORRUPTIONS` or the import path of an attack class; or a
            dict with that as ``class_path`` and, where wanted, ``init_args``, ``strengths``, ``strength``
            (the argument of the class that is swept, ``eps`` if not given) and ``name``.
        strengths: those of entries that have none of their own.

    Raises:
        SettingError: if an entry names nothing, has an argument that does not fit, or needs strengths.

    Example:
        >>> [attack.name for attack in make_attacks(["pgd_radius", "torchattacks.FGSM"], [0.1, 0.2])]
        ['pgd_radius', 'FGSM']
    """
    require(len(chosen) > 0, "attacks", list(chosen), "must be at least one")
    attacks = [_make(entry, strengths) for entry in chosen]
    names = [attack.name for attack in attacks]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, "attacks", twice, "must have names of their own: give the second one a name")
    return attacks


def _make(entry: str | dict[str, Any], strengths: Sequence[float] | None) -> Attack:
    settings: dict[str, Any] = {"class_path": entry} if isinstance(entry, str) else dict(entry)
    unknown = sorted(settings.keys() - set(_KEYS))
    require(not unknown, "attacks", unknown, f"must be among {', '.join(_KEYS)}")
    path = settings.get("class_path")
    if not isinstance(path, str):
        raise SettingError("attacks", entry, "must have a class_path, a name or an import path")
    name = settings.get("name") or path.rpartition(".")[2]
    require(re.fullmatch(r"[\w.-]+", name) is not None, "attacks", name, "must be a name fit for a file")
    arguments = dict(settings.get("init_args") or {})
    given = settings.get("strengths") or (None if path in SEARCHES else strengths)
    try:
        chosen = tuple(float(strength) for strength in given or ())
    except (TypeError, ValueError) as error:
        raise SettingError("strengths", given, f"must be a list of numbers, for {name}") from error
    require(all(map(math.isfinite, chosen)), "strengths", list(chosen), f"must be finite, for {name}")
    if path in SEARCHES:
        return RadiusAttack(name, SEARCHES[path], _search_arguments(path, arguments), chosen)
    if path not in CORRUPTIONS and "." not in path:
        known = ", ".join([*SEARCHES, *CORRUPTIONS])
        valid = f"must be an import path such as torchattacks.PGD, or one of {known}"
        raise SettingError("attacks", path, valid)
    require(len(chosen) > 0, "strengths", given, f"must be at least one number for {name}")
    if path in CORRUPTIONS:
        require(not arguments, "init_args", arguments, f"must be empty: {path} has a strength only")
        return SweepAttack(name, partial(_corrupted, CORRUPTIONS[path]), arguments, chosen)
    change = LibraryAttack(path, arguments, settings.get("strength") or "eps")
    return SweepAttack(name, change, arguments, chosen)


def _search_arguments(path: str, given: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a search, those that were given and the others' defaults."""
    taken = ("logits_fn", "images", "labels", "batch_size")
    parameters = inspect.signature(SEARCHES[path]).parameters.items()
    known = {name: parameter.default for name, parameter in parameters if name not in taken}
    for name, value in given.items():
        require(name in known, "init_args", name, f"is no argument of {path}; it has {', '.join(known)}")
        positive = isinstance(value, int | float) and value > 0
        require(positive, name, value, "must be a number above 0")
    return {**known, **given}


def _corrupted(
    corruption: Corruption,
    logits_fn: Logits,
    images: Tensor,
    labels: Tensor,
    strength: float,
    key: Sequence[int],
) -> Tensor:
    # Corruptions work on the CPU and on float32
    return corruption(images.cpu().float(), strength, np.random.default_rng(list(key)))
