"""The command line: ``attractors fit|validate|test|predict|export|sweep``."""

from __future__ import annotations

import os
import sys

from torch import distributed

from lightning_attractors.cli.command_line import AttractorsCLI
from lightning_attractors.cli.export import export_checkpoint
from lightning_attractors.cli.locks import is_first_process, let_go
from lightning_attractors.cli.quiet import quieten
from lightning_attractors.cli.refusals import Beginning, refusal
from lightning_attractors.cli.signals import ended, ended_by_signals
from lightning_attractors.cli.sweep import sweep


def run() -> None:
    """Run the command line; errors made for people, and all before the first batch, are one line."""
    quieten()
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # a config may name classes of the user's own files, as with python -m
    beginning = Beginning()
    try:
        with ended_by_signals():
            _run_subcommand(beginning)
    except BaseException as error:
        if (signal := ended(error)) is not None:
            if is_first_process():
                print(f"error: {signal}", file=sys.stderr)
            sys.exit(signal.status)
        line = refusal(error, beginning.over) if isinstance(error, Exception) else None
        beginning.take_back()
        if line is None:
            raise
        sys.exit(f"error: {line}")
    finally:
        let_go()
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()  # else its threads may end the process with an abort


def _run_subcommand(beginning: Beginning) -> None:
    subcommand, arguments = sys.argv[1:2], sys.argv[2:]
    if subcommand == ["export"]:
        export_checkpoint(arguments)
    elif subcommand == ["sweep"]:
        sweep(arguments, beginning)
    else:
        AttractorsCLI(beginning)
