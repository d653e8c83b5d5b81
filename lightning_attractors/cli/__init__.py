"""The command line: config files, the folder of a run, the table at its end."""

from lightning_attractors.cli.command_line import AttractorsCLI
from lightning_attractors.cli.config_files import config_parser
from lightning_attractors.cli.entry import run
from lightning_attractors.cli.summary import print_summary

__all__ = ["AttractorsCLI", "config_parser", "print_summary", "run"]
