import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from lightning_attractors.training import CheckpointFiles
from lightning_attractors.writing import remove_asides

FILES = CheckpointFiles()


@pytest.fixture
def small_disk():
    """No file of this process may grow beyond 4 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_what_is_written_is_read_back_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    for value in (1, 2):
        FILES.save_checkpoint({"state_dict": {"x": torch.full((3,), value)}, "epoch": value}, path)
    content = FILES.load_checkpoint(path)
    assert (content["epoch"], content["state_dict"]["x"].tolist()) == (2, [2, 2, 2])
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_write_that_fails_half_way_leaves_the_old_one_whole_and_nothing_else(tmp_path, small_disk):
    path = tmp_path / "last.ckpt"
    FILES.save_checkpoint({"epoch": 1}, path)
    small_disk()
    with pytest.raises(OSError, match="File too large") as caught:
        FILES.save_checkpoint({"epoch": 2, "x": torch.rand(10_000)}, path)
    assert caught.value.filename == str(path)
    assert FILES.load_checkpoint(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from lightning_attractors.training import CheckpointFiles
path = Path(sys.argv[1])
CheckpointFiles().save_checkpoint({"epoch": 1}, path)

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

# in the middle of the copy that a rename across file systems is, or else right before the rename
import shutil
shutil.copyfileobj = shutil._fastcopy_sendfile = os.replace = os.rename = die
CheckpointFiles().save_checkpoint({"epoch": 2, "x": torch.rand(10_000)}, path)
"""


def test_a_kill_while_it_is_written_leaves_the_old_one_whole_wherever_tmpdir_is(tmp_path):
    path = tmp_path / "last.ckpt"
    shm = Path("/dev/shm")
    other = (
        shm if shm.is_dir() and shm.stat().st_dev != tmp_path.stat().st_dev else Path(tempfile.gettempdir())
    )
    killed = subprocess.run([sys.executable, "-c", KILLED, path], env={**os.environ, "TMPDIR": str(other)})
    assert killed.returncode == -signal.SIGKILL
    assert FILES.load_checkpoint(path) == {"epoch": 1}
    remove_asides(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert not list(other.glob("*last.ckpt*"))


def test_a_file_brings_code_only_if_the_user_says_so(tmp_path):
    path = tmp_path / "last.ckpt"
    FILES.save_checkpoint({"epoch": 1, "at": Path("somewhere")}, path)
    assert FILES.load_checkpoint(path)["at"] != Path("somewhere")
    assert FILES.load_checkpoint(path, weights_only=False)["at"] == Path("somewhere")
