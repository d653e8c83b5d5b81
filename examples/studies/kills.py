"""Kill training runs at random moments, resume them, and compare every bit of their checkpoints.

    python examples/studies/kills.py                 # 40 kills: 8 of each of five families, about 15 minutes
    python examples/studies/kills.py NMODE --kills 4

A quarter of a family's kills falls into the first seconds, a quarter into the writing of a checkpoint, when
half of the new file is there or all of it but not yet under its name, and the rest into the time from the
first batch to the last state. Half of the runs have their TMPDIR on another file system (``--tmpdir``). A
run that was killed before its first checkpoint must say that there is nothing to resume, and starts anew;
any other must go on in its own folder. In the end everything in ``last.ckpt`` and ``best.ckpt`` must be
equal, to the bit, to that of a run that was not killed, and so must be that of a second such run: otherwise
the noise is in the training and not in the resuming.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

EPOCHS = 6
FAMILIES = {
    "SANODE": ["--model.coupling", "projected", "--model.steps", "5"],
    "CVFR": ["--model.coupling", "spectral", "--model.steps", "3", "--model.sigma", "0.2"],
    "KrotovHopfield": ["--model.grid", "3", "--model.kernel_size", "3", "--model.pool_size", "2"],
    "NMODE": ["--model.width", "16", "--model.clip", "0.2"],
    "NonexpansiveNet": ["--model.widths", "[4, 6]", "--model.depths", "[1, 1]", "--model.strides", "[1, 1]"],
}
FILTERS = ["--trainer.filter_epochs", "2", "--model.m", "2", "--model.power", "4"]
COMMON = [
    *("--data", "LettersDataModule", "--data.n_train", "200", "--data.n_val", "50", "--data.n_test", "50"),
    *("--data.batch_size", "20", "--data.noise_train", "0.6", "--checkpoint.monitor", "val/accuracy"),
    *("--model.lr_scheduler", "OneCycle", "--model.lr_interval", "step"),
    *("--trainer.accelerator", "cpu", "--trainer.max_epochs", str(EPOCHS)),
]
FIRST_SECONDS = 6.0
BEGUN = "config.yaml"  # is written as the training begins
# The command line in a process that kills itself as it writes its nth checkpoint: before os.fsync, when half
# of the file is there, or before os.replace, when the file is there under a name of its own.
AT_WRITE = """
import os, signal, sys
step, left = sys.argv.pop(1), int(sys.argv.pop(1))
call = getattr(os, step)
def counted(*given):
    global left
    path = given[1] if step == "replace" else os.readlink(f"/proc/self/fd/{given[0]}")
    left -= ".ckpt" in str(path)
    if left == 0:
        if step == "fsync":
            os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    return call(*given)
setattr(os, step, counted)
from lightning_attractors.__main__ import main
main()
"""


def command(family: str, *more: str) -> list[str]:
    """The arguments of a fit of a family."""
    filters = FILTERS if family == "KrotovHopfield" else []
    return ["fit", "--model", family, *FAMILIES[family], *COMMON, *filters, *more]


def start(
    folder: Path, tmpdir: str | None, program: list[str], arguments: list[str]
) -> subprocess.Popen[str]:
    """A process of the command line in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"TMPDIR": tmpdir} if tmpdir else {})}
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path, tmpdir: str | None, arguments: list[str]) -> tuple[int, str]:
    """Run the command line to its end, and give its status and what it said."""
    process = start(folder, tmpdir, ["-m", "lightning_attractors"], arguments)
    said, _ = process.communicate()
    return process.returncode, said


def kill_one(folder: Path, tmpdir: str | None, family: str, number: int, seconds: float, rng: Any) -> str:
    """Start a run and kill it; says when."""
    if number % 4 == 1:
        # The newest state is written every epoch, and the best one at least once.
        step, nth = rng.choice(["fsync", "replace"]), rng.randint(1, EPOCHS + 1)
        process = start(folder, tmpdir, ["-c", AT_WRITE, step, str(nth)], command(family))
        said, _ = process.communicate()
        if process.returncode != -signal.SIGKILL:
            sys.exit(said)
        return f"at {step} of file {nth}"
    while True:
        process = start(folder, tmpdir, ["-m", "lightning_attractors"], command(family))
        moment = rng.uniform(0, FIRST_SECONDS if number % 4 == 3 else seconds)
        while number % 4 != 3 and process.poll() is None and not list(folder.glob(f"runs/*/{BEGUN}")):
            time.sleep(0.01)
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"after {moment:.2f} s" + (" of training" if number % 4 != 3 else "")
        seconds /= 2  # it was done before: runs are faster now
        shutil.rmtree(folder)


def resume(folder: Path, tmpdir: str | None, family: str) -> str:
    """Resume a run to its end, or start it anew if there is nothing to resume; says which."""
    saved = list(folder.glob("runs/version_0/checkpoints/last.ckpt"))
    epochs = checkpoint(folder, "last.ckpt")["epoch"] + 1 if saved else 0
    status, said = finish(folder, tmpdir, command(family, "--ckpt_path", "last"))
    if saved:
        if status or len(list(folder.glob("runs/*"))) != 1:
            sys.exit(f"did not resume in {folder}:\n{said}")
        return f"resumed after epoch {epochs}"
    last = said.strip().splitlines()[-1]
    if not status or ("there is no earlier run" not in last and "has no last checkpoint" not in last):
        sys.exit(f"did not say that there is nothing to resume in {folder}:\n{said}")
    status, said = finish(folder, tmpdir, command(family))
    if status:
        sys.exit(f"cannot start anew in {folder}:\n{said}")
    return "nothing to resume"


def newest(folder: Path) -> Path:
    """The newest run in a folder."""
    return max(folder.glob("runs/version_*"), key=lambda path: int(path.name[8:]))


def checkpoint(folder: Path, name: str) -> Any:
    """The checkpoint of the newest run in a folder."""
    return torch.load(newest(folder) / "checkpoints" / name, map_location="cpu", weights_only=True)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two checkpoints differ, in any bit; paths of runs that were begun twice have another number."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [(f"{where}/{key}", one.get(key, ...), other.get(key, ...)) for key in {**one, **other}]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = [(f"{where}/{index}", *pair) for index, pair in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return [] if same and torch.equal(bits(one), bits(other)) else [where]
    else:
        return [] if repr(one) == repr(other) else [where]
    return [found for name, left, right in pairs for found in differences(left, right, name)]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, in which nan is equal to itself and −0 is not 0."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def renumbered(content: Any) -> Any:
    """The checkpoint with all paths those of a first run."""
    if isinstance(content, dict):
        return {renumbered(key): renumbered(value) for key, value in content.items()}
    if isinstance(content, str):
        return content.replace("runs/version_1/", "runs/version_0/")
    return content


def unlike(one: Path, other: Path) -> str:
    """What differs between the checkpoints of two folders, in words."""
    words = ""
    for name in ("last.ckpt", "best.ckpt"):
        contents = [renumbered(checkpoint(folder, name)) for folder in (one, other)]
        if found := differences(contents[0], contents[1]):
            words += f"{name} differs in {found[:3]}; "
    return words


def study(family: str, kills: int, seed: int, root: Path, tmpdir: str) -> list[bool]:
    """Whether both checkpoints of each killed run are those of one that was not."""
    rng = random.Random(f"{family} {seed}")
    for name in ("whole", "again"):
        status, said = finish(root / name, None, command(family))
        if status:
            sys.exit(said)
    run = newest(root / "again")
    seconds = (run / "checkpoints" / "last.ckpt").stat().st_mtime - (run / BEGUN).stat().st_mtime
    noise = unlike(root / "whole", root / "again")
    print(f"{family}: two runs that were not killed: {noise or 'equal bit for bit'}")
    same = []
    for number in range(kills):
        folder = root / f"killed_{number}"
        place = tmpdir if (number + number // 4 + seed) % 2 else None
        when = kill_one(folder, place, family, number, seconds, rng)
        how = resume(folder, place, family)
        words = unlike(root / "whole", folder)
        if left := [str(path) for path in newest(folder).rglob(".*")]:
            words += f"left behind: {left}"
        same.append(not words)
        where = "TMPDIR elsewhere" if place else "TMPDIR here"
        print(f"{family} {number}: killed {when}, {where}, {how}: {words or 'equal bit for bit'}")
    return same


def main() -> None:
    """The study, one line per kill."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", choices=[*FAMILIES, []], help="by default all five")
    parser.add_argument("--kills", type=int, default=8, help="per family")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of who has which TMPDIR")
    parser.add_argument("--tmpdir", default="/dev/shm", help="a folder on another file system")
    settings = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    same: list[bool] = []
    for family in settings.families or FAMILIES:
        with tempfile.TemporaryDirectory(prefix="kills_") as root:
            if os.stat(root).st_dev == os.stat(settings.tmpdir).st_dev:
                parser.error(f"--tmpdir {settings.tmpdir}: must be on another file system than {root}")
            same += study(family, settings.kills, settings.seed, Path(root), settings.tmpdir)
    print(f"{sum(same)} of {len(same)} killed runs have both checkpoints equal bit for bit")
    sys.exit(not all(same))


if __name__ == "__main__":
    main()
