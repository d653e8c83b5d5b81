"""What the command line and config files get wrong, in one line, with what was probably meant."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser
from torch.optim import Optimizer

# Around what the parser of a class says: the parsers around it quote it amid their own words.
_OPEN, _CLOSE = "\x02", "\x03"
_QUOTED = re.compile(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}", re.DOTALL)
_UNKNOWN = (
    r"unrecognized arguments: --?(?P<name>[^\s=]+)(?:[ =](?P<value>[^-\s]\S*))?",
    r"[Oo]ption '(?P<name>[^']+)' is not accepted",
    r"does not accept (?:option|nested key) '(?P<name>[^']+)'",
    r"Key '(?P<name>[^']+)' is not expected",
)
_SUBCOMMAND = r"(?:(?:fit|validate|test|predict)\.)"  # which the names of settings begin with in messages
_KINDS = {
    "float": "a number",
    "int": "an integer",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "list": "a list",
    "Iterable": "a list",
    "dict": "a mapping",
}
_SUBCLASSES = re.compile(r"known subclasses: ((?:[\w.]+, )+[\w.]+)")
_MANY_CLASSES = 30
_LONGEST = 400  # characters of a line that could not be understood


class UsageError(ValueError):
    """Something on the command line or in a config that the parser does not accept; one line."""


class _ShortHelp(DefaultHelpFormatter):
    """Names few of the classes that a setting takes, where they are many: our own."""

    def _expand_help(self, action: Any) -> str:
        return _SUBCLASSES.sub(_few_classes, super()._expand_help(action))


class OneLineParser(LightningArgumentParser):
    """Lightning's parser, but for what it says of arguments: one line, and no list of all that there are.

    Names of settings are to be given in full.

    Raises:
        UsageError: where other parsers write their usage and end the process.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # the beginning of a name is another setting as soon as one is added that begins so
        super().__init__(*args, **{"formatter_class": _ShortHelp, "allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> Any:
        line = explained(message, list(setting_names(self)))
        if not self.exit_on_error:  # the parser of a class, amid another one
            super().error(f"{_OPEN}{line}{_CLOSE}", ex)
        raise UsageError(line) from ex


def _few_classes(listed: re.Match[str]) -> str:
    every = listed[1].split(", ")
    if len(every) <= _MANY_CLASSES:
        return listed[0]
    own = [path for path in every if path.startswith(f"{__name__.partition('.')[0]}.")]
    return f"known subclasses: {''.join(f'{path}, ' for path in own)}and {len(every) - len(own)} others"


def program() -> str:
    """How the command line was called, for its usage."""
    return "python -m lightning_attractors" if Path(sys.argv[0]).name == "__main__.py" else "attractors"


def class_at(path: str) -> Any:
    """The class of a class path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def subparsers(parser: Any) -> dict[str, Any]:
    """The parsers of a parser's subcommands by their names."""
    found = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    return next(found, {})


def setting_names(parser: Any) -> Iterator[str]:
    """The settings of a parser, and of those of its subcommands."""
    for subcommand in subparsers(parser).values():
        yield from setting_names(subcommand)
    for action in parser._actions:
        if not isinstance(action.choices, dict) and not action.dest.endswith("help"):
            yield action.dest


def explained(message: str, names: list[str]) -> str:
    """One line that says what a parser's message does.

    Args:
        message: the message, of any number of lines.
        names: the settings that there are.
    """
    key = re.search(r'(?:Parser key|Validation of key) "([^"]*)"', message)
    name = re.sub(f"^{_SUBCOMMAND}", "", key[1]) if key else ""
    if quoted := _QUOTED.search(message):
        inside = quoted[1]
        return f"{name}.{inside}" if name and not inside.startswith(f"{name}.") else inside
    for pattern in _UNKNOWN:
        if unknown := re.search(pattern, message):
            return _unknown(**unknown.groupdict(), names=names)
    if choice := re.search(r"subcommand: invalid choice: '([^']*)' \(choose from (.*)\)", message):
        known = ", ".join([*re.findall(r"[\w-]+", choice[2]), "configs"])
        return f"{choice[1]!r}: there is no such subcommand; there are {known}"
    if missing := re.search(r"following arguments are required: (.*)", message):
        names_missing = re.sub(rf"\b{_SUBCOMMAND}", "", missing[1])
        return f"{name}.{names_missing}: must be given" if name else f"{names_missing}: must be given"
    expected = _expected(message)
    value = _value(message)
    if name and expected not in ([], ["null"]) and value is not None:
        classes = _classes(message) or (list(_below(Optimizer)) if name.endswith("optimizer") else [])
        imported = "not correspond to a subclass" in message
        meant = "" if imported else _meant(value, classes)
        return f"{name}={value!r}: must be {' or '.join(expected)}{meant}"
    problem = re.search(r"Errors:\s+- (.*)", message)
    if problem and name and value is not None and "either not accessible" in message:
        return f"{name}={value!r}: cannot be used ({problem[1]})"
    if stray := re.search(r"unrecognized arguments: (\S+)", message):
        return f"{stray[1]!r} is no setting: settings are given as --name value"
    line = " ".join(
        re.sub(rf'(?:Parser key|argument) "?(?:--)?{_SUBCOMMAND}?([\w.]+)"?:', r"\1:", message).split()
    )
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"


def _unknown(name: str, names: list[str], value: str | None = None) -> str:
    """What to say of a setting that there is not."""
    shown = name if value is None else f"{name}={value!r}"
    meant = next((f"; did you mean {known}?" for known in names if known.endswith(f".{name}")), "")
    meant = meant or _meant(name, names)
    if not meant and "." in name:
        head, _, rest = name.partition(".")
        meant = _meant(head, {known.partition(".")[0] for known in names}, f".{rest}")
    few = f"; there are {', '.join(sorted(names))}" if not meant and 0 < len(names) <= 30 else ""
    return f"{shown}: there is no such setting{meant}{few}"


def _meant(given: str, known: Iterable[str], ending: str = "") -> str:
    """What was probably meant, as a question, or nothing."""
    by_folded = {name.casefold(): name for name in known if name != given.rpartition(".")[2]}
    close = get_close_matches(given.rpartition(".")[2].casefold(), by_folded, n=1, cutoff=0.7)
    close = close or get_close_matches(given.casefold(), by_folded, n=1, cutoff=0.7)
    return f"; did you mean {by_folded[close[0]]}{ending}?" if close else ""


def _expected(message: str) -> list[str]:
    """What kinds of value would be accepted, in words, each once."""
    found: list[str] = []
    for line in message.splitlines():
        if kind := re.search(r"Expected an? <class '(?:[\w.]*\.)?(\w+)'>", line):
            found.append(_KINDS.get(kind[1], kind[1]))
        elif values := re.search(r"Expected an? typing\.Literal\[(.*?)\](?:\.|$)", line):
            found.append(f"one of {values[1]}")
        elif "Expected a dot import path string" in line:
            found.append("the name of a class")
        elif several := re.search(r"Multiple subclasses with name \w+.*?: ([\w., ]+\w)", line):
            found.append(f"one of {several[1]}")
        elif "Expected an import path or a subclass spec" in line:
            found.append("the name of a class")
        elif base := re.search(r"not correspond to a subclass of (\w+)", line):
            found.append(f"a {base[1]}")
        elif missing := re.search(r"(?:module|No module named) '[\w.]+'(?: has no attribute '\w+')?", line):
            found.append(f"a class that can be imported ({missing[0]})")
    return [*dict.fromkeys(found)]


def _value(message: str) -> str | None:
    """The value that a message is about."""
    found = re.search(r"Given value: (?!NestedArg|Namespace)(.*)", message)
    found = found or re.search(r"Given value: NestedArg\(.*val='(.*)'\)", message)
    found = found or re.search(r"(?:Got value|import path string): (.*)", message)
    value = found[1].strip() if found else None
    named = re.match(r"\{'class_path': '([^']*)'", value or "")
    return named[1] if named else value


def _classes(message: str) -> list[str]:
    """The names of the classes that would have been accepted: all below those that a message names."""
    found: dict[str, None] = {}
    for path in re.findall(r"\b(?:[a-z_]\w*\.)+[A-Z]\w*", message):
        module, _, name = path.rpartition(".")
        if module.split(".")[0] in ("typing", "collections"):
            continue
        try:
            kind = getattr(importlib.import_module(module), name, None)
        except Exception:  # whatever a user's module raises is no matter of what was meant
            continue
        if isinstance(kind, type):
            found.update(dict.fromkeys(_below(kind)))
    return list(found)


def _below(kind: type) -> Iterator[str]:
    others: list[type] = kind.__subclasses__()
    for other in others:
        yield other.__name__
        yield from _below(other)
