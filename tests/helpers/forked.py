"""Command lines that are run one after the other in a process of their own, forked from this one."""

import os
import resource
import signal
import sys
import time
from pathlib import Path

from lightning_attractors.__main__ import main

# What the process may take beside what this one has: a setting of any size is to be refused before memory of
# that size is asked for.
MEMORY = 4 * 2**30


def forked(commands, folder, patience=60):
    """Run command lines, each in a folder of its own below ``folder``.

    Gives for each the exit status, None where it had to be killed after ``patience`` seconds, what it wrote
    to stderr, and the files that it left.
    """
    places = [folder / str(number) for number in range(len(commands))]
    for place in places:
        place.mkdir()
    process = os.fork()
    if process == 0:
        _run_all(commands, places)
    done, since = 0, time.monotonic()
    while os.waitpid(process, os.WNOHANG) == (0, 0):
        time.sleep(0.02)
        now = len(list(folder.glob("*.status")))
        done, since = (now, time.monotonic()) if now > done else (done, since)
        if time.monotonic() - since > patience:
            os.killpg(process, signal.SIGKILL)
    return [_found(place) for place in places]


def _run_all(commands, places):
    """In the child, which leaves by os._exit, so that nothing of the test process is done twice."""
    try:
        os.setsid()
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        for command, place in zip(commands, places, strict=True):
            _run(command, place)
    finally:
        os._exit(0)


def _run(command, place):
    """Run a command line in a folder; its status and what it writes go beside the folder."""
    os.chdir(place)
    os.environ.pop("PL_GLOBAL_SEED", None)
    sys.argv = ["lightning_attractors", *command]
    with place.with_suffix(".stderr").open("w", buffering=1) as errors, Path(os.devnull).open("w") as nothing:
        sys.stderr, sys.stdout = errors, nothing
        os.dup2(errors.fileno(), 2)
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
            print(end.code, file=errors)
        except BaseException as error:
            status = 99
            print(repr(error), file=errors)
    place.with_suffix(".status").write_text(str(status))


def _found(place):
    status, errors = place.with_suffix(".status"), place.with_suffix(".stderr")
    return (
        int(status.read_text()) if status.exists() else None,
        errors.read_text(errors="replace") if errors.exists() else "",
        list(place.rglob("*")),
    )
