"""Share studies of 24 short trainings between two processes, kill one of them, and look at every trial.

    python examples/studies/sweep_kills.py                  # 3 studies, one after the other
    python examples/studies/sweep_kills.py --studies 1 --trials 6

Both processes run the same ``attractors sweep``. One is killed (SIGKILL) at a random moment while there are
trials left, as a rule amid a training; the other one is to end well. Then each trial must be finished once,
by a run whose folder is whole: its settings are those of the trial, its results give the trial's value, and
its best checkpoint can be read.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

CONFIG = """
model: {class_path: SANODE, init_args: {coupling: projected, steps: 2}}
data: {class_path: LettersDataModule, init_args: {n_train: 20, n_val: 10, n_test: 10, batch_size: 10}}
trainer: {accelerator: cpu, max_epochs: 1, log_every_n_steps: 1}
"""
SPACE = """
model.steps: {low: 1, high: 4}
model.optimizer.lr: {low: 1e-3, high: 1.0, log: true}
"""


def sweep(folder: Path, trials: int) -> subprocess.Popen[bytes]:
    """A process that takes its share of the study in a folder."""
    command = [sys.executable, "-m", "lightning_attractors", "sweep", "--config", "letters.yaml"]
    command += ["--space", "space.yaml", "--trials", str(trials), "--storage", "sqlite:///study.db"]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})


def begun(folder: Path) -> int:
    """How many trials have been begun."""
    return len(list(folder.glob("runs/letters_sweep/logs/*.log")))


def faults(folder: Path, trials: int) -> list[str]:
    """What is wrong with the study in a folder, in words."""
    with (folder / "runs/letters_sweep/trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    if [row["trial"] for row in rows] != [str(number) for number in range(trials)]:
        found.append(f"the trials are {[row['trial'] for row in rows]}")
    for row in rows:
        if row["state"] != "complete":
            found.append(f"trial {row['trial']} is {row['state']}: {row['error']}")
            continue
        run = folder / row["folder"]
        config = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
        given = str(config["steps"]), str(config["optimizer"]["init_args"]["lr"])
        with (run / "metrics.csv").open(newline="") as file:
            values = {line["val/accuracy"] for line in csv.DictReader(file)}
        torch.load(run / "checkpoints/best.ckpt", map_location="cpu", weights_only=True)
        if given != (row["model.steps"], row["model.optimizer.lr"]) or row["val/accuracy"] not in values:
            found.append(f"trial {row['trial']} is not what is in {run}")
    return found


def study(folder: Path, trials: int, rng: random.Random) -> list[str]:
    """Run a study by two processes, kill one, and say what is wrong in the end."""
    (folder / "letters.yaml").write_text(CONFIG)
    (folder / "space.yaml").write_text(SPACE)
    workers = [sweep(folder, trials) for _ in range(2)]
    last = rng.randint(2, trials - 2)
    while begun(folder) < last:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 5))
    workers[0].kill()
    workers[0].wait()
    print(f"killed one process after {begun(folder)} trials had begun", flush=True)
    if workers[1].wait():
        return [f"the other process ended with {workers[1].returncode}"]
    return faults(folder, trials)


def main() -> None:
    """The studies, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--trials", type=int, default=24, help="per study, at least 4")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    settings = parser.parse_args()
    rng, wrong = random.Random(settings.seed), 0
    for number in range(settings.studies):
        with tempfile.TemporaryDirectory(prefix="sweep_kills_") as folder:
            found = study(Path(folder), settings.trials, rng)
            attempts = begun(Path(folder))
        wrong += bool(found)
        how = "; ".join(found) or f"all {settings.trials} finished, each once, none damaged"
        print(f"study {number}: {how} ({attempts} runs were begun)", flush=True)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
