"""Attacks from what a user writes: a name, an import path, the attack itself, any of them with settings."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from lightning_attractors.contracts import name_of
from lightning_attractors.errors import SettingError, require
from lightning_attractors.norms import NORMS
from lightning_attractors.robustness.attacks.calls import (
    CallableAttack,
    CorruptionAttack,
    imported,
    is_corruption,
    makes_attacks,
)
from lightning_attractors.robustness.attacks.fgsm import fgsm_radii
from lightning_attractors.robustness.attacks.pgd import pgd_radii
from lightning_attractors.robustness.attacks.torchattacks_bridge import LibraryAttack
from lightning_attractors.robustness.attacks.trials import (
    Change,
    RadiusSearch,
    Search,
    StrengthSweep,
    Trial,
    norm_of,
)
from lightning_attractors.robustness.corruptions import CORRUPTIONS
from lightning_attractors.robustness.usual import default_strengths

SEARCHES: dict[str, Search] = {"fgsm_radius": fgsm_radii, "pgd_radius": pgd_radii}
# What else goes by a name: see register_attack
_REGISTERED: dict[str, Any] = {}
# What else a search in L2 goes by than its function's defaults, which suit L∞: as far as 2, with 40 steps.
_IN_L2: dict[str, dict[str, float]] = {
    "fgsm_radius": {"largest": 2.0},
    "pgd_radius": {"largest": 2.0, "step_size": 0.05},
}
_KEYS = ("class_path", "init_args", "strengths", "strength", "name")

# What a user may write; Callable stands for every kind of attack that is at hand.
Choice = str | dict[str, Any] | Callable[..., Any]


def register_attack(name: str, attack: Any) -> None:
    """Let an attack, or a class of them, be chosen by a name of its own.

    Args:
        name: a word that no attack and no corruption has yet.
        attack: a callable or a class, as :func:`make_attacks` takes them.

    Raises:
        SettingError: if the name is taken, or no word, or the attack is neither.
    """
    require(callable(attack), "attack", attack, "must be a callable or a class")
    require(re.fullmatch(r"[\w-]+", name) is not None, "name", name, "must be a word")
    taken = [*SEARCHES, *CORRUPTIONS, *_REGISTERED]
    require(name not in taken, "name", name, f"must be new: {', '.join(taken)} are taken")
    _REGISTERED[name] = attack


def make_attacks(chosen: Sequence[Choice], strengths: Sequence[float] | None) -> list[Trial]:
    """One attack for every entry, under names of their own.

    Of attacks that differ by their norm, those in L2 get it in their names: ``PGD`` and ``PGD_l2``.

    Args:
        chosen: each ``fgsm_radius``, ``pgd_radius``, a name of
            :data:`~lightning_attractors.robustness.CORRUPTIONS` or of :func:`register_attack`, or an import
            path; or what is found there: a callable ``(logits_fn, images, labels, strength) -> images`` or a
            class of such, a function ``(images, strength, generator) -> images``, or a class as those of
            torchattacks. Or a dict with one of these as ``class_path`` and, where wanted, ``init_args``,
            ``strengths``, ``strength`` (the argument of a class like torchattacks' that is swept, ``eps`` if
            not given) and ``name``.
        strengths: those of entries that have none of their own. Without any, an attack of a norm that is
            known takes the usual ones, and others between and beyond: up to 0.3 in L∞, to 2 in L2. A search
            in L2 goes as far as 2, too, if not told otherwise.

    Raises:
        SettingError: if an entry names nothing, has an argument that does not fit, or needs strengths.

    Example:
        >>> [attack.name for attack in make_attacks(["pgd_radius", "torchattacks.FGSM"], [0.1, 0.2])]
        ['pgd_radius', 'FGSM']
    """
    require(len(chosen) > 0, "attacks", list(chosen), "must be at least one")
    trials = [
        entry if isinstance(entry, RadiusSearch | StrengthSweep) else _make(entry, strengths)
        for entry in chosen
    ]
    trials = _told_apart_by_norm(trials)
    names = [trial.name for trial in trials]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, "attacks", twice, "must have names of their own: give the second one a name")
    return trials


def _told_apart_by_norm(trials: Sequence[Trial]) -> list[Trial]:
    """The norm in the names of attacks in L2 that have the name of one in another norm."""
    norms = {
        name: {trial.norm for trial in trials if trial.name == name} for name in (t.name for t in trials)
    }
    return [
        replace(trial, name=f"{trial.name}_l2")
        if trial.norm == "l2" and len(norms[trial.name]) > 1
        else trial
        for trial in trials
    ]


def _make(entry: Choice, strengths: Sequence[float] | None) -> Trial:
    settings: dict[str, Any] = dict(entry) if isinstance(entry, dict) else {"class_path": entry}
    unknown = sorted(settings.keys() - set(_KEYS))
    require(not unknown, "attacks", unknown, f"must be among {', '.join(_KEYS)}")
    path = settings.get("class_path")
    if not (isinstance(path, str) or callable(path)):
        raise SettingError("attacks", entry, "must have a class_path: a name, an import path or a callable")
    name = settings.get("name") or (
        path.rpartition(".")[2] if isinstance(path, str) else name_of(path).strip("<>")
    )
    require(re.fullmatch(r"[\w.-]+", name) is not None, "attacks", name, "must be a name fit for a file")
    arguments = dict(settings.get("init_args") or {})
    search = SEARCHES.get(path) if isinstance(path, str) else None
    given = settings.get("strengths") or (None if search else strengths)
    try:
        chosen = tuple(float(strength) for strength in given or ())
    except (TypeError, ValueError) as error:
        raise SettingError("strengths", given, f"must be a list of numbers, for {name}") from error
    require(all(map(math.isfinite, chosen)), "strengths", list(chosen), f"must be finite, for {name}")
    if search is not None:
        require(min(chosen, default=0) >= 0, "strengths", list(chosen), f"must be at least 0, for {name}")
        return RadiusSearch(name, search, _search_arguments(str(path), search, arguments), chosen)
    found = _found(path) if isinstance(path, str) else path
    shown = path if isinstance(path, str) else name
    change, recorded = _change(shown, found, arguments, settings.get("strength") or "eps")
    chosen = chosen or default_strengths(norm_of(recorded))
    require(len(chosen) > 0, "strengths", given, f"must be at least one number for {name}")
    return StrengthSweep(name, change, recorded, chosen)


def _found(path: str) -> Any:
    """What a name or an import path stands for."""
    if path in CORRUPTIONS or path in _REGISTERED:
        return CORRUPTIONS.get(path) or _REGISTERED[path]
    known = ", ".join([*SEARCHES, *CORRUPTIONS, *_REGISTERED])
    valid = f"must be an import path such as torchattacks.PGD, or one of {known}"
    require("." in path, "attacks", path, valid)
    return imported(path)


def _change(
    shown: str, found: Any, arguments: dict[str, Any], strength: str
) -> tuple[Change, dict[str, Any]]:
    """What changes the images, and the arguments that it was set to."""
    if is_corruption(found) or found in CORRUPTIONS.values():
        return CorruptionAttack(shown, found, arguments), arguments
    if not inspect.isclass(found):
        return CallableAttack(shown, found, arguments), {**_own_settings(found), **arguments}
    if not makes_attacks(found):
        library = LibraryAttack(found, arguments, strength, shown)
        return CallableAttack(shown, library, {}), arguments
    try:
        made = found(**arguments)
    except TypeError as error:
        raise SettingError("init_args", arguments, f"{shown}: {error}") from error
    return CallableAttack(shown, made, {}), {**_own_settings(made), **arguments}


def _own_settings(attack: Any) -> dict[str, Any]:
    """What an attack that is a dataclass, as those along a gradient are, was set to."""
    return {f.name: getattr(attack, f.name) for f in fields(attack)} if is_dataclass(attack) else {}


def _search_arguments(path: str, search: Search, given: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a search, those that were given and the others' defaults."""
    taken = ("logits_fn", "images", "labels", "batch_size")
    parameters = inspect.signature(search).parameters.items()
    known = {name: parameter.default for name, parameter in parameters if name not in taken}
    for name, value in given.items():
        require(name in known, "init_args", name, f"is no argument of {path}; it has {', '.join(known)}")
        if name == "norm":
            require(value in NORMS, name, value, f"must be {' or '.join(NORMS)}")
        else:
            require(isinstance(value, int | float) and value > 0, name, value, "must be a number above 0")
    if norm_of(given) == "l2":
        known |= _IN_L2[path]
    # L∞ goes without saying in a run's files
    return {**{name: value for name, value in known.items() if name != "norm"}, **given}
