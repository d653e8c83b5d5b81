"""In processes of their own: tests that need CUDA, and shipped configs by the real command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpu_checks.table import Row, attempted

_HOUSE = Path(__file__).parents[2]
CONFIGS = (
    *("sa_node_mnist", "sa_node_fashion_mnist", "cvfr_mnist", "nmode_mnist", "nmode_fashion_mnist"),
    *("nonexpansive_mnist", "kh_mnist"),
)


def marked_tests(seconds: float, files: Sequence[str] = ("tests",), workers: int = 4) -> Row:
    """All tests that need CUDA: how many passed, as pytest says it in its last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-m", "cuda", *files]
    done = subprocess.run(command, cwd=_HOUSE, capture_output=True, text=True, timeout=seconds, check=False)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing said"]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    passed = done.returncode == 0 and " passed" in lines[-1]
    found = "; ".join([lines[-1].strip("= "), *failed])
    return Row("tests marked cuda", found, passed, {"exit code": done.returncode})


def whole_fits(
    folder: Path, data: Path, until: float, configs: Sequence[str] = CONFIGS, options: Sequence[str] = ()
) -> Iterator[Row]:
    """A row for every config: wall time of the command and the test metrics that it left.

    Args:
        folder: where the runs go.
        data: with the files of the data sets.
        until: by ``time.monotonic()``, when all have to have ended.
        configs: names of shipped ones.
        options: further ones of the command line.
    """
    for name in configs:
        left = until - time.monotonic()
        if left < 1:
            yield Row(name, "not begun: the time was over", False)
        else:
            yield attempted(name, lambda name=name, left=left: _whole_fit(name, folder, data, left, options))


def _whole_fit(name: str, folder: Path, data: Path, seconds: float, options: Sequence[str]) -> Row:
    root = ["--data.root", str(data)] if data.is_dir() else []
    command = [sys.executable, "-m", "lightning_attractors", "fit", "--config", name, *root, *options]
    folder.mkdir(parents=True, exist_ok=True)
    paths = os.pathsep.join([str(_HOUSE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths}
    started = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return Row(name, f"ended after {seconds:.0f} s: the time was over", False)
    took = time.perf_counter() - started
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing said"]
        return Row(name, f"exit code {done.returncode}: {said[-1]}", False)
    newest = max(folder.glob(f"runs/{name}/*/results.json"), key=lambda path: path.stat().st_mtime)
    results = json.loads(newest.read_text(encoding="utf-8"))
    metrics = {key: value for key, value in results["metrics"].items() if key.startswith("test/")}
    said = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if value is not None)
    found = f"{took:.0f} s with all imports, {results['precision']}, {said}"
    values = {
        "wall seconds": took,
        "results": str(newest.relative_to(folder)),
        **results["seconds"],
        **metrics,
    }
    return Row(name, found, True, values)
