"""The real command line, in this process or in one of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_attractors.__main__ import main

HELPERS = Path(__file__).parent
CONFIGS = HELPERS.parent / "configs"
RUN = Path("runs/test/version_0")


def small(name):
    """The arguments of a small run, one of tests/configs, whose folder is RUN."""
    return ["--config", str(CONFIGS / f"{name}.yaml"), "--trainer.logger.name", "test"]


def run(*arguments):
    """Run the command line in this process."""
    before = sys.argv
    sys.argv = ["lightning_attractors", *map(str, arguments)]
    try:
        main()
    finally:
        sys.argv = before


def spawn(*arguments):
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "lightning_attractors", *map(str, arguments)]
    paths = os.pathsep.join([str(HELPERS), str(HELPERS.parents[1])])
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)


def run_whole_and_killed(settings, epoch):
    """Two runs of the same settings: ``whole`` ends, the one in RUN is killed at the start of an epoch."""
    run("fit", *settings, "--trainer.logger.name", "whole")
    kill = ["--trainer.callbacks+", "accidents.KillAt"]
    kill += ["--trainer.callbacks.epoch", epoch, "--trainer.callbacks.batch", 0]
    killed = spawn("fit", *settings, *kill)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def refused(*arguments):
    """The one line with which the command line refuses the arguments."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code not in (0, None)
    message = str(caught.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message
