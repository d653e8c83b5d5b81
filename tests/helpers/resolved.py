"""What the command line makes of its arguments, without running anything."""

from pathlib import Path

import pytest
import yaml
from command_line import run


def resolved(capsys, *arguments, subcommand="fit"):
    """The settings that arguments stand for."""
    with pytest.raises(SystemExit) as caught:
        run(subcommand, *arguments, "--print_config")
    assert caught.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def logger(capsys, *arguments, **options):
    return resolved(capsys, *arguments, **options)["trainer"]["logger"]


def name(capsys, *arguments, **options):
    """The name of the run."""
    return logger(capsys, *arguments, **options)["init_args"]["name"]


def write(path, **settings):
    """A config file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(yaml.safe_dump(settings))
    return path
