"""Config files: one may build on another, and the first one names the run."""

from __future__ import annotations

import numbers
import os
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, Namespace, get_loader  # type: ignore[attr-defined]
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

from lightning_attractors.cli.usage import OneLineParser
from lightning_attractors.errors import SettingError, one_line, require
from lightning_attractors.shipped import meant_shipped, shipped_config


def config_parser(**kwargs: Any) -> LightningArgumentParser:
    """The parser of Lightning's command line, but for what ``--config`` makes of a file: see the action."""
    parser = OneLineParser(**kwargs)
    text = (
        "A config file in YAML or JSON, or a name of `attractors configs`. The first one names the run; "
        "`base: FILE` in it builds on another."
    )
    parser.add_argument("-c", "--config", action=ConfigFile, help=text)
    return parser


# Of the arguments of torchvision's transforms, which the config of a run is to have as they were given.
register_type(
    numbers.Number,
    serializer=lambda number: number,
    deserializer=lambda given: given if isinstance(given, int | float) else float(given),
    type_check=lambda given, kind: isinstance(given, kind),
)

_MERGE = "tag:yaml.org,2002:merge"  # of the key <<, which may come more than once


class ConfigFile(ActionConfigFile):
    """The action of ``--config``: an ordinary one, and three conveniences.

    The name of a shipped config stands for its file. A logger without a name gets that of the first file,
    without its ending. A file with the entry ``base: FILE``, a path relative to its own folder or the name of
    a shipped config, is read as if that file had been given before it.
    """

    def __call__(
        self, parser: ArgumentParser, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        configs = [values]
        require(values.strip() != "", "config", values, "must be a file")
        path = shipped_config(values, "config", Path()) or Path(values)
        if ":" not in values or os.path.exists(path):  # else it is no file, but settings written out
            _require_file(path, values)
            if not cfg.get(self.dest):
                _name_run(cfg, path.stem)
            configs = with_bases(path)
        for config in configs:
            super().__call__(parser, cfg, config, option_string)


def _require_file(path: Path, given: str) -> None:
    require(os.path.exists(path), "config", given, f"there is no such file{meant_shipped(given)}")
    require(path.is_file(), "config", given, "must be a file; a pipe is not read")


def _check(path: Path) -> None:
    """See that a config is a file of text, and that it sets nothing twice, of which YAML takes the last.

    Raises:
        SettingError: naming the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError("config", str(path), f"must be a file of text in UTF-8 ({error})") from error
    if path.suffix == ".json":  # which may be indented with tabs
        return
    try:
        content = yaml.compose(text)
        twice = next(_twice(content, set()), None)
    except yaml.YAMLError as error:
        raise SettingError("config", str(path), f"must be YAML or JSON ({one_line(error)})") from error
    settings = isinstance(content, yaml.MappingNode)
    require(settings, "config", str(path), "must hold settings by their names, as `model: SANODE`")
    require(twice is None, "config", str(path), f"must have {twice} once: only the last one would count")


def _twice(node: yaml.Node | None, seen: set[int]) -> Iterator[str]:
    """The keys that a mapping, or one in it, has more than once; ``seen`` are the nodes that need no look."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names = [str(key.value) for key, _ in node.value if key.tag != _MERGE]
        yield from (name for name in names if names.count(name) > 1)
        for _, value in node.value:
            yield from _twice(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _twice(value, seen)


def with_bases(path: Path, builds_on_it: tuple[Path, ...] = ()) -> list[str]:
    """What a config file stands for: files, or the text of what they add, each to be read on top of the last.

    Args:
        path: the file, which exists.
        builds_on_it: the files that have led to this one.

    Raises:
        SettingError: if a base is no file and no shipped config, or leads back to a file that builds on it.
    """
    _check(path)
    settings = _settings(path)
    if "base" not in settings:
        return [str(path)]
    base = settings.pop("base")
    named = shipped_config(base, "base", path.parent) if isinstance(base, str) else None
    file = named or path.parent / str(base)
    found = isinstance(base, str) and file.is_file()
    valid = f"must be a shipped config, or a file relative to the folder of {path}, which names it"
    require(found, "base", base, valid)
    chain = (*builds_on_it, path.resolve())
    require(file.resolve() not in chain, "base", base, f"must not lead back to {path}, which names it")
    return [*with_bases(file, chain), yaml.safe_dump(settings, sort_keys=False)]


def _settings(path: Path) -> dict[str, Any]:
    """The settings of a file; none if it is no config, which the parser is the one to say."""
    try:
        settings = get_loader("yaml")(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _name_run(cfg: Namespace, name: str) -> None:
    logger = cfg.get("trainer.logger")
    if isinstance(logger, Namespace) and logger.get("init_args.name") == "":
        logger["init_args.name"] = name
