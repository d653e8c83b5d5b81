"""A table of command lines and files that cannot work, each of which is refused in one line."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from bad_files import write_checkpoints, write_configs, write_data
from command_line import refused, run, small
from forked import forked

TABLE = Path(__file__).with_name("bad_inputs.txt")
SUBCOMMANDS = ("fit", "validate", "test", "predict")
LONGEST = 700  # characters of a line
TOGETHER = 25  # command lines that a process runs


def entries():
    """The config, the arguments and the start of the line, of every entry of the table."""
    config = ""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            config = line.strip("[]")
        elif line and not line.startswith("#"):
            arguments, _, expected = line.partition("→")
            yield config, arguments.strip(), expected.strip()


ENTRIES = list(entries())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of files that are not what they seem."""
    folder = tmp_path_factory.mktemp("files")
    before = Path.cwd()
    os.chdir(folder)
    run("fit", *small("sa_node_letters"), "--trainer.max_steps", 1)
    write_checkpoints(folder, folder / "runs/test/version_0/checkpoints/last.ckpt")
    write_configs(folder)
    write_data(folder)
    refused("fit", *small("nmode_letters"), "--model.decay", 0)  # what is parsed once is parsed sooner again
    os.chdir(before)
    return folder


def command(config, arguments, files):
    words = shlex.split(arguments.replace("@/", f"{files}/"))
    if not config:
        return words
    subcommand = words.pop(0) if words and words[0] in SUBCOMMANDS else "fit"
    return [subcommand, *small(config), *words]


def fault(status, output, left, expected):
    """What is wrong with how a command line ended, or an empty string."""
    lines = [line for line in output.splitlines() if line.strip()]
    start = next((number for number, line in enumerate(lines) if line.startswith("error: ")), None)
    if status in (0, None) or start is None:
        return f"was not refused but ended with {status}: {lines[-3:]}"
    if start != len(lines) - 1 or len(lines[start]) > LONGEST:
        return f"is not one line: {lines[start:]}"
    if not lines[start].startswith(f"error: {expected}"):
        return f"has the line {lines[start]!r}"
    return f"left {[str(path) for path in left]}" if left else ""


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits its memory, as Linux does")
@pytest.mark.parametrize("first", range(0, len(ENTRIES), TOGETHER))
def test_is_refused_in_one_line_and_leaves_nothing(first, files, tmp_path):
    chosen = ENTRIES[first : first + TOGETHER]
    ends = forked([command(config, arguments, files) for config, arguments, _ in chosen], tmp_path)
    faults = [
        f"{config} {arguments} {wrong}"
        for (config, arguments, expected), end in zip(chosen, ends, strict=True)
        if (wrong := fault(*end, expected.replace("@/", f"{files}/")))
    ]
    assert not faults, "\n".join(faults)


def test_the_table_is_long_enough():
    assert len(set(ENTRIES)) >= 250
