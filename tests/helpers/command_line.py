"""The real command line, in this process or in others, and what its runs leave."""

import contextlib
import io
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from processes import on_processes

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


ON_TWO = ["--trainer.devices", 2, "--trainer.strategy", "ddp"]


def on_two_processes(*arguments):
    """The command line on two processes, which end well, and are forked from this one to save the imports.

    Gives what they print (``stdout``), and what they log and warn of (``stderr``).
    """
    with tempfile.TemporaryDirectory() as folder:
        told = on_processes(2, lambda: _told(*arguments, *ON_TWO), Path(folder))
    return SimpleNamespace(stdout="".join(out for out, _ in told), stderr="".join(err for _, err in told))


def _told(*arguments):
    out, err = io.StringIO(), io.StringIO()
    for package in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{package}").addHandler(logging.StreamHandler(err))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(message, file=err)
        run(*arguments)
    return out.getvalue(), err.getvalue()


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


def _end_of(*arguments):
    """The exit code of the command line in a process forked from this one, which saves the imports."""
    process = os.fork()
    if process == 0:
        try:
            run(*arguments)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed_and_resumed(settings, epoch):
    """The weights of a run killed at the start of an epoch and resumed: those of a run that was not."""
    run("fit", *settings, "--trainer.logger.name", "whole")
    kill = ["--trainer.callbacks+", "accidents.KillAt"]
    kill += ["--trainer.callbacks.epoch", epoch, "--trainer.callbacks.batch", 0]
    assert _end_of("fit", *settings, *kill) == -signal.SIGKILL
    assert checkpoint()["epoch"] == epoch - 1
    run("fit", *settings, "--ckpt_path", "last")
    for name in ("last", "best"):
        assert_equal_checkpoints(checkpoint(name=name), checkpoint(Path("runs/whole/version_0"), name))
    assert (RUN / "config_resumed.yaml").exists()
    assert not Path("runs/test/version_1").exists()
    return weights()
