"""The space of a sweep: which settings are varied, and over what."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from jsonargparse import get_loader

from lightning_attractors.errors import SettingError, one_line, require

Number = int | float
Value = bool | int | float | str | None
_WORDS = ("low", "high", "log", "step", "values")
_FORM = "must be {low: …, high: …}, with log or step if need be, or {values: […]}"
_FINEST = 1_000_000  # steps of a range


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, both among them: integers if both bounds are."""

    low: Number
    high: Number
    step: Number | None = None
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it is a range of integers."""
        return isinstance(self.low, int)

    def suggest(self, trial: Any, key: str) -> Number:
        """A number for an Optuna trial, by the sampler of its study."""
        if self.is_whole:
            number = trial.suggest_int(key, self.low, self.high, step=self.step or 1, log=self.log)
        else:
            number = trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)
        return cast(Number, number)

    def extremes(self) -> list[Number]:
        """The numbers that have to be valid for all to be."""
        return [self.low, self.high]

    def points(self, key: str) -> list[Number]:
        """The numbers that a grid has.

        Raises:
            SettingError: if there is no step between them.
        """
        step = self.step or (1 if self.is_whole and not self.log else None)
        if step is None:
            raise SettingError(key, asdict(self), "must have a step, or values, for the sampler grid")
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        numbers = [self.low + index * step for index in range(count)]
        return numbers if self.is_whole else [float(f"{number:.12g}") for number in numbers]


@dataclass(frozen=True)
class Choice:
    """One of some values; what is no single number or word is written out, as on a command line."""

    values: tuple[Value, ...]

    def suggest(self, trial: Any, key: str) -> Value:
        """A value for an Optuna trial, by the sampler of its study."""
        return cast(Value, trial.suggest_categorical(key, self.values))

    def extremes(self) -> list[Value]:
        """The values that have to be valid: all of them."""
        return list(self.values)

    def points(self, key: str) -> list[Value]:
        """The values that a grid has."""
        return list(self.values)


Space = dict[str, Range | Choice]
Point = dict[str, Value]


def read_space(path: str) -> Space:
    """The space of a file: a YAML mapping of dotted settings to ranges and choices.

    Args:
        path: the file, as ``model.gamma: {low: 0.1, high: 10, log: true}`` and
            ``model.steps: {values: [5, 10]}``.

    Raises:
        SettingError: if there is no such file, or it holds anything else.
    """
    try:
        content = get_loader("yaml")(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError("space", path, f"must be a file that can be read ({error.strerror})") from error
    except Exception as error:  # the loader's own, of which there are several
        raise SettingError("space", path, f"must be a file of YAML ({one_line(error)})") from error
    fits = isinstance(content, dict) and len(content) > 0
    require(fits, "space", path, "must hold settings by their names, as model.gamma: {low: 1, high: 2}")
    return {str(key): dimension(str(key), given) for key, given in content.items()}


def dimension(key: str, given: Any) -> Range | Choice:
    """What a setting is varied over.

    Raises:
        SettingError: naming the setting, if that is nothing.
    """
    if not isinstance(given, Mapping):
        raise SettingError(key, given, _FORM)
    for word in given:
        close = get_close_matches(str(word), _WORDS, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        require(word in _WORDS, key, dict(given), f"{_FORM}, and has {word}{meant}")
    if "values" in given:
        require(len(given) == 1, key, dict(given), "must have values, or low and high, not both")
        return _choice(key, given["values"])
    require("low" in given and "high" in given, key, dict(given), _FORM)
    return _range(key, dict(given))


def _choice(key: str, values: Any) -> Choice:
    require(
        isinstance(values, list) and values != [], key, values, "must have a list of values, one at least"
    )
    written = [value if isinstance(value, Value) else json.dumps(value) for value in values]
    distinct = {json.dumps(value) for value in written}
    require(len(distinct) == len(written), key, values, "must have each of its values once")
    return Choice(tuple(written))


def _range(key: str, given: dict[str, Any]) -> Range:
    low, high, step, log = (given.get(name) for name in ("low", "high", "step", "log"))
    for name in ("low", "high", "step"):
        number = given.get(name, 1)
        known = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        require(known, f"{key} {name}", number, "must be a finite number")
    low, high = cast(Number, low), cast(Number, high)
    require(log in (None, False, True), f"{key} log", log, "must be true or false")
    require(low < high, key, given, "is empty: low must be below high")
    require(not log or low > 0, key, given, "must have low above 0 where it is logarithmic")
    require(not (log and step is not None), key, given, "must have log or step, not both")
    whole = all(isinstance(number, int) for number in (low, high) if number is not None)
    require(not whole or isinstance(step, int | None), key, given, "must have a whole step between integers")
    fits = step is None or (high - low) / _FINEST <= step <= high - low
    require(fits, key, given, "must have a step above 0, and at most from low to high")
    return Range(low, high, step, bool(log)) if whole else Range(float(low), float(high), step, bool(log))


def grid(space: Space) -> Iterator[Point]:
    """All points of a space, in the order of its file: the last setting varies fastest.

    Raises:
        SettingError: if a range has no step.
    """
    for values in itertools.product(*(varied.points(key) for key, varied in space.items())):
        yield dict(zip(space, values, strict=True))


def flags(point: Mapping[str, Value]) -> list[str]:
    """A point as arguments of the command line."""
    shown = {key: value if isinstance(value, str) else json.dumps(value) for key, value in point.items()}
    return [f"--{key}={value}" for key, value in shown.items()]
