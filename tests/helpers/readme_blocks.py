"""The commands and snippets of a page, and how to run them as printed but for how long they take."""

import re
import runpy
import subprocess
from pathlib import Path
from unittest import mock

import lightning as L
from command_line import run

import lightning_attractors.cli  # noqa: F401 - its trainer must not be made of the short one

_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What the page does not show: a run is of two batches of each kind
_LIMITS = {f"limit_{split}_batches": 2 for split in ("train", "val", "test", "predict")}
_SHORT = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, **_LIMITS}
# In place of the programs: their names and arguments, each ended by a zero, a command by two
_RECORD = '{name}() {{ printf "%s\\0" {name} "$@" "" >> "$RECORD"; }}\n'
PROGRAMS = ("attractors", "pip", "pytest", "tensorboard")


class ShortTrainer(L.Trainer):
    """A trainer of snippets."""

    def __init__(self, **settings):
        super().__init__(**{**settings, **_SHORT})


def sections(page):
    """The blocks (language, text) of every section that has some, by its heading."""
    parts = re.split(r"^##? (.+)\n", page, flags=re.MULTILINE)[1:]
    found = {title: _BLOCK.findall(text) for title, text in zip(parts[::2], parts[1::2], strict=True)}
    return {title: blocks for title, blocks in found.items() if blocks}


def commands(text):
    """Every command [program, argument, ...] that bash makes of a block, loops and all, in their order."""
    record = Path("recorded")
    record.write_bytes(b"")
    script = "".join(_RECORD.format(name=name) for name in PROGRAMS) + text
    nothing_else = {"RECORD": str(record), "PATH": ""}  # a program that is not among these is not found
    subprocess.run(["/bin/bash", "-e", "-c", script], env=nothing_else, check=True)
    content = record.read_text()
    record.unlink()
    return [command.split("\0") for command in content.split("\0\0")[:-1]]


def run_block(language, text):
    """Run a block in this process; gives the commands that it consists of."""
    if language == "python":
        Path("snippet.py").write_text(text)
        with mock.patch.object(L, "Trainer", ShortTrainer):
            runpy.run_path("snippet.py")
        return []
    found, short = commands(text), [f"--trainer.{name}={value}" for name, value in _SHORT.items()]
    for program, *arguments in found:
        if program == "attractors":
            run(*arguments, *(short if arguments[0] != "export" else []))
    return found
