"""What a process asks of the system, so that it is fast alone and leaves others their share.

Without torch, since some of it must be asked for before torch is loaded. The command line does; nothing here
happens on import.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Turns in which an idle thread of GNU OpenMP waits for more work before it sleeps. By default 300,000: two
# trainings beside each other then wait most of the time for each other's idle threads.
_SPIN_COUNT = "1000"
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")

# Of malloc.h: the free memory at the end of the heap, and the size from which on memory comes from the system
# and returns to it at once.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
ALLOCATING = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
_NEVER = 2**31 - 1
_LARGEST_ONCE = 2**25  # the most that older versions of the C library accept


def share_processors() -> None:
    """Let idle threads sleep soon; before torch is loaded, and unless the user has set how they wait."""
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next batch, instead of faulting it in again page by page.

    With GNU's C library, unless the user has set how memory is allocated; elsewhere nothing happens.
    """
    if platform.libc_ver()[0] == "glibc" and not any(name in os.environ for name in ALLOCATING):
        library = ctypes.CDLL(None)
        if not library.mallopt(MMAP_THRESHOLD, _NEVER):
            library.mallopt(MMAP_THRESHOLD, _LARGEST_ONCE)
        library.mallopt(TRIM_THRESHOLD, _NEVER)


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Let other processes of this user on this machine wait here while one of them is within."""
    from filelock import FileLock  # half of what the command line loads before torch, and seldom needed

    who = Path.home().name
    with FileLock(Path(tempfile.gettempdir()) / f"lightning_attractors_{who}_{name}.lock"):
        yield


def processor_name() -> str:
    """The processor's name, where the system tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def physical_memory() -> int | None:
    """Bytes of memory that this machine has, or None where that takes more than to ask."""
    return None if sys.platform == "win32" else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
