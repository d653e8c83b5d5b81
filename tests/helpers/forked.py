"""Command lines in processes that are forked from this one, where everything is imported already."""

import os
import resource
import signal
import sys
import time
from pathlib import Path

from lightning_attractors.__main__ import main

# What one may take that is refused, beside what this process has already: settings of any size are refused
# before memory of that size is asked for.
MEMORY = 4 * 2**30


def forked(arguments, folder, seconds=60):
    """Run the command line in a folder; the exit status and what it wrote to stderr.

    The status is None where it had to be killed after so many seconds.
    """
    output = folder.with_name(f"{folder.name}.stderr")
    process = os.fork()
    if process == 0:
        _run(arguments, folder, output)
    status = _wait(process, seconds)
    return status, output.read_text(errors="replace")


def _run(arguments, folder, output):
    """In the child: it leaves by os._exit, so that nothing of the test process is done twice."""
    status = 99
    try:
        os.setsid()
        os.chdir(folder)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        sys.stderr = output.open("w", buffering=1)
        sys.stdout = Path(os.devnull).open("w")
        os.dup2(sys.stderr.fileno(), 2)
        os.dup2(sys.stdout.fileno(), 1)
        sys.argv = ["lightning_attractors", *arguments]
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    finally:
        os._exit(status)


def _wait(process, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None
