"""What the command line asks of the system, in processes of their own."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lightning_attractors import process

REPORT = """
import os, sys
from lightning_attractors.process import keep_freed_memory, share_processors
share_processors()
keep_freed_memory()
assert "torch" not in sys.modules
print(os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_idle_threads_sleep_soon_unless_the_user_has_set_how_they_wait(given, expected):
    waiting = {name: value for name, value in os.environ.items() if name not in process.WAITING}
    found = subprocess.run(
        [sys.executable, "-c", REPORT], env={**waiting, **given}, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [expected]


class Library:
    """A C library that notes what it is asked for, and may know no large thresholds."""

    def __init__(self, largest):
        self.largest, self.asked = largest, {}

    def mallopt(self, name, value):
        if name == process.MMAP_THRESHOLD and value > self.largest:
            return 0
        self.asked[name] = value
        return 1


@pytest.mark.parametrize("largest", [2**31, 2**25])
def test_freed_memory_is_kept_by_new_and_old_libraries(largest, monkeypatch):
    for name in process.ALLOCATING:
        monkeypatch.delenv(name, raising=False)
    library = Library(largest)
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    process.keep_freed_memory()
    assert library.asked[process.MMAP_THRESHOLD] == min(largest, 2**31 - 1)
    assert library.asked[process.TRIM_THRESHOLD] == 2**31 - 1


def test_allocation_that_the_user_has_set_and_other_libraries_are_left_alone(monkeypatch):
    library = Library(2**31)
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    process.keep_freed_memory()
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    process.keep_freed_memory()
    assert library.asked == {}


def test_others_wait_while_one_is_within(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    order = []

    def enter(name):
        with process.one_at_a_time("test"):
            order.append(name)
            time.sleep(0.05)
            order.append(name)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(enter, "abc"))
    assert order[::2] == order[1::2]
    assert sorted(order[::2]) == ["a", "b", "c"]
