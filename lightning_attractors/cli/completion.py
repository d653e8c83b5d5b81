"""A script that completes the command line in a shell, made by shtab.

jsonargparse makes one too, of every setting that every importable class may be given; it takes many minutes.
This one knows the settings of trainer and command line, and the models and data modules of this package with
theirs.
"""

from __future__ import annotations

import argparse
from typing import Any

from jsonargparse import ArgumentParser
from lightning import LightningDataModule, LightningModule

from lightning_attractors import data, models
from lightning_attractors.cli.usage import setting_names, subparsers
from lightning_attractors.extras import load_extra
from lightning_attractors.shipped import shipped_configs

_SHELLS = ("bash", "zsh", "tcsh")
_CONFIGS = {
    "bash": '_attractors_configs() { compgen -W "NAMES" -- "$1"; compgen -f -- "$1"; }',
    "zsh": "_attractors_configs() { compadd -- NAMES; _files }",
}


class PrintCompletion(argparse.Action):
    """The action of ``--print_completion SHELL`` of a parser with subcommands, which it ends."""

    def __init__(self, **settings: Any) -> None:
        text = "Print a script that completes this command line in a shell; needs shtab."
        super().__init__(choices=_SHELLS, default=argparse.SUPPRESS, help=text, **settings)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        shtab = load_extra("shtab", "print_completion", values)
        names = " ".join(shipped_configs())
        preamble = {shell: text.replace("NAMES", names) for shell, text in _CONFIGS.items()}
        print(shtab.complete(outline(parser, shtab.FILE), values, preamble=preamble))
        argparse.ArgumentParser.exit(parser, 0)


def outline(parser: Any, file: dict[str, str]) -> argparse.ArgumentParser:
    """The subcommands of a parser and their settings, as a parser of the standard library.

    Args:
        parser: a parser with subcommands.
        file: what completes the names of files in each shell.
    """
    classes: dict[str, list[type]] = {
        "model": [kind for kind in _classes(models) if issubclass(kind, LightningModule)],
        "data": [kind for kind in _classes(data) if issubclass(kind, LightningDataModule)],
    }
    completes = {"config": {"bash": "_attractors_configs", "zsh": "_attractors_configs"}, "ckpt_path": file}
    of_classes = dict.fromkeys(
        f"{part}.{name}" for part, kinds in classes.items() for kind in kinds for name in _settings(kind)
    )
    made = argparse.ArgumentParser(prog="attractors")  # which shells look up by this word
    commands = made.add_subparsers()
    commands.add_parser("configs", help="")
    for command, its_parser in subparsers(parser).items():
        one = commands.add_parser(command, help="")
        for name in dict.fromkeys([*setting_names(its_parser), *of_classes]):
            choices = [kind.__name__ for kind in classes.get(name, [])] or None
            action: Any = one.add_argument(f"--{name}", choices=choices)
            if name in completes:
                action.complete = completes[name]
    return made


def _classes(room: Any) -> list[type]:
    listed = [getattr(room, name) for name in room.__all__]
    return [kind for kind in listed if isinstance(kind, type)]


def _settings(kind: type) -> list[str]:
    parser = ArgumentParser()
    parser.add_class_arguments(kind)
    return list(setting_names(parser))
