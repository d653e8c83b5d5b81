"""A table of command lines and files that cannot work, each of which is refused in one line."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from bad_files import write_checkpoints, write_configs, write_data
from command_line import CONFIGS, refused, run, small
from forked import forked

TABLE = Path(__file__).with_name("bad_inputs.txt")
LONGEST = 700  # characters of a line


def cases():
    """The config, the subcommand with its arguments and the start of the line, of every entry of the table."""
    config = ""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            config = line.strip("[]")
        elif line and not line.startswith("#"):
            arguments, _, expected = line.partition(" → ")
            yield config, arguments.strip(), expected.strip()


@pytest.fixture(scope="session")
def files(tmp_path_factory, worker_id):
    """A folder of files that are not what they seem, one for every process that tests."""
    folder = tmp_path_factory.mktemp("files")
    before = Path.cwd()
    os.chdir(folder)
    run("fit", *small("sa_node_letters"), "--trainer.fast_dev_run", "false", "--trainer.max_steps", 1)
    write_checkpoints(folder, folder / "runs/test/version_0/checkpoints/last.ckpt")
    write_configs(folder)
    write_data(folder)
    refused("fit", "--nothing")  # so that the processes that are forked have parsers ready
    os.chdir(before)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits its memory, as Linux does")
@pytest.mark.parametrize(("config", "arguments", "expected"), list(cases()))
def test_is_refused_in_one_line_and_leaves_nothing(config, arguments, expected, files, tmp_path):
    words = shlex.split(arguments.replace("@/", f"{files}/").replace("configs/", f"{CONFIGS}/"))
    subcommand = words.pop(0) if words and words[0] in ("fit", "validate", "test", "predict") else "fit"
    given = small(config) if config else []
    folder = tmp_path / "run"
    folder.mkdir()
    status, output = forked([subcommand, *given, *words] if config else words, folder)
    assert status not in (0, None), output
    lines = [line for line in output.splitlines() if line.strip()]
    start = next((number for number, line in enumerate(lines) if line.startswith("error: ")), None)
    assert start == len(lines) - 1, output
    assert lines[start].startswith(f"error: {expected.replace('@/', f'{files}/')}"), lines[start]
    assert len(lines[start]) < LONGEST
    assert not list(folder.iterdir())


def test_the_table_is_long_enough():
    assert len(set(cases())) >= 250
