"""Kill training runs at random moments, resume them, and compare every bit of their checkpoints.

    python examples/studies/kills.py                 # 40 kills: 8 of each of five families, about 15 minutes
    python examples/studies/kills.py NMODE --kills 4

A quarter of a family's kills falls into the first seconds, a quarter into the writing of a checkpoint, when
the new file is on the disk but does not have its name yet, and the rest into the second half of its time,
which is training and the test that follows. Two runs of three have their TMPDIR on another file system
(``--tmpdir``). A run that was killed before its first checkpoint must say that there is nothing to resume,
and starts anew. In the end everything in ``last.ckpt`` and ``best.ckpt`` must be equal to that of a run
that was not killed.
"""

from __future__ import annotations

import argparse
import os
import random
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
# The command line in a process that kills itself when its nth checkpoint is on the disk, not yet renamed.
AT_WRITE = """
import os, signal, sys
left, replace = int(sys.argv.pop(1)), os.replace
def counted(source, target):
    global left
    left -= str(target).endswith(".ckpt")
    os.kill(os.getpid(), signal.SIGKILL) if left == 0 else replace(source, target)
os.replace = counted
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
        nth = rng.randint(1, EPOCHS + 1)  # the last one of every epoch, and at least one that is best
        process = start(folder, tmpdir, ["-c", AT_WRITE, str(nth)], command(family))
        said, _ = process.communicate()
        if process.returncode != -signal.SIGKILL:
            sys.exit(said)
        return f"as file {nth} was written"
    moment = rng.uniform(0, FIRST_SECONDS) if number % 4 == 3 else rng.uniform(seconds / 2, seconds)
    process = start(folder, tmpdir, ["-m", "lightning_attractors"], command(family))
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return f"after {moment:.2f} s"


def resume(folder: Path, tmpdir: str | None, family: str) -> str:
    """Resume a run to its end, or start it anew if there is nothing to resume; says which."""
    status, said = finish(folder, tmpdir, command(family, "--ckpt_path", "last"))
    if status == 0:
        return "resumed"
    last = said.strip().splitlines()[-1]
    if "there is no earlier run" not in last and "has no last checkpoint" not in last:
        sys.exit(f"cannot resume in {folder}:\n{said}")
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
        pairs = [(f"{where}/{key}", one.get(key), other.get(key)) for key in {**one, **other}]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = [(f"{where}/{index}", *pair) for index, pair in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    else:
        return [] if one == other else [where]
    return [found for name, *both in pairs for found in differences(*both, name)]


def renumbered(content: Any) -> Any:
    """The checkpoint with all paths those of a first run."""
    if isinstance(content, dict):
        return {renumbered(key): renumbered(value) for key, value in content.items()}
    if isinstance(content, str):
        return content.replace("runs/version_1/", "runs/version_0/")
    return content


def study(family: str, kills: int, seed: int, root: Path, tmpdir: str) -> list[bool]:
    """Whether both checkpoints of each killed run are those of one that was not."""
    rng = random.Random(f"{family} {seed}")
    began = time.monotonic()
    status, said = finish(root / "whole", None, command(family))
    if status:
        sys.exit(said)
    seconds = time.monotonic() - began
    same = []
    for number in range(kills):
        folder = root / f"killed_{number}"
        place = tmpdir if number % 3 else None
        when = kill_one(folder, place, family, number, seconds, rng)
        how = resume(folder, place, family)
        found = {
            name: differences(*(renumbered(checkpoint(at, name)) for at in (root / "whole", folder)))
            for name in ("last.ckpt", "best.ckpt")
        }
        left = [str(path) for path in newest(folder).rglob(".*")]
        same.append(not any(found.values()) and not left)
        words = "".join(f"{name} differs in {where[:3]}; " for name, where in found.items() if where)
        where = "TMPDIR elsewhere" if place else "TMPDIR here"
        words += f"left behind: {left}" if left else ""
        print(f"{family} {number}: killed {when}, {where}, {how}: {words or 'equal bit for bit'}")
    return same


def main() -> None:
    """The study, one line per kill."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", choices=[*FAMILIES, []], help="by default all five")
    parser.add_argument("--kills", type=int, default=8, help="per family")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--tmpdir", default="/dev/shm", help="a folder on another file system")
    settings = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    same: list[bool] = []
    for family in settings.families or FAMILIES:
        with tempfile.TemporaryDirectory(prefix="kills_") as root:
            same += study(family, settings.kills, settings.seed, Path(root), settings.tmpdir)
    print(f"{sum(same)} of {len(same)} killed runs have both checkpoints equal bit for bit")
    sys.exit(not all(same))


if __name__ == "__main__":
    main()
