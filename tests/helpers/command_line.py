"""The real command line, in this process or in others, and what its runs leave."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


def on_two_processes(*arguments):
    """The command line on two processes, which end well."""
    process = spawn(*arguments, "--trainer.devices", 2, "--trainer.strategy", "ddp")
    assert process.returncode == 0, process.stderr
    return process


def table_of(output):
    """The figures of the table that a run ends with, and the paths below it, by their labels."""
    lines = output[output.index("Run finished") :].splitlines()
    rows = [line.split("│")[1:3] for line in lines if line.startswith("│")]
    rows += [line.split("  ", 1) for line in lines if re.match(r"[a-z ]+  ", line)]
    return {label.strip(): value.strip() for label, value in rows if label.strip()}


def refused(*arguments):
    """The one line with which the command line refuses the arguments."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code not in (0, None)
    message = str(caught.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def refused_before_training(*arguments):
    """The line with which a run is refused that leaves no checkpoint."""
    message = refused("fit", *arguments)
    assert not list(Path().glob("runs/**/*.ckpt"))
    return message


def checkpoint(folder=RUN, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=False)


def weights(folder=RUN, name="last"):
    return checkpoint(folder, name)["state_dict"]


def assert_equal_weights(weights, expected):
    assert all(torch.equal(value, weights[name]) for name, value in expected.items())


def assert_equal_checkpoints(found, expected, where="checkpoint"):
    """Everything in two checkpoints is equal bit for bit, but for the names of the runs in their paths."""
    if isinstance(expected, dict):
        names = [str(name).replace("runs/whole", "runs/test") for name in expected]
        assert [str(name) for name in found] == names, where
        for name, one, other in zip(names, found.values(), expected.values(), strict=True):
            assert_equal_checkpoints(one, other, f"{where}[{name}]")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_equal_checkpoints(one, other, f"{where}[{index}]")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, str):
        assert found == expected.replace("runs/whole", "runs/test"), where
    else:
        assert found == expected, where


def killed_and_resumed(settings, epoch):
    """The weights of a run killed at the start of an epoch and resumed: those of a run that was not."""
    run("fit", *settings, "--trainer.logger.name", "whole")
    kill = ["--trainer.callbacks+", "accidents.KillAt"]
    kill += ["--trainer.callbacks.epoch", epoch, "--trainer.callbacks.batch", 0]
    killed = spawn("fit", *settings, *kill)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoint()["epoch"] == epoch - 1
    run("fit", *settings, "--ckpt_path", "last")
    for name in ("last", "best"):
        assert_equal_checkpoints(checkpoint(name=name), checkpoint(Path("runs/whole/version_0"), name))
    assert (RUN / "config_resumed.yaml").exists()
    assert not Path("runs/test/version_1").exists()
    return weights()
