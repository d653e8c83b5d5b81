"""What a CUDA device has to show, in one table: ``python examples/gpu_check.py``, in less than 8 minutes.

Every row is written as soon as it is found, so that a run that is cut off leaves what it has.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from gpu_checks.commands import marked_tests, whole_fits
from gpu_checks.families import FAMILIES
from gpu_checks.integrations import integrations
from gpu_checks.short_fits import short_fits
from gpu_checks.step_times import step_times
from gpu_checks.syncs import places_of_waits
from gpu_checks.table import Report, Row, attempted

_SECONDS, _TESTS = 480.0, 120.0


def main() -> None:
    """Run all checks, or say that there is nothing to check."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/gpu_check"), help="folder of what is found")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of MNIST and Fashion-MNIST")
    parser.add_argument("--skip-full", action="store_true", help="leave out the configs at full length")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu_check needs a CUDA device, and there is none here")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    report = Report(arguments.output.resolve(), machine())
    device = torch.device("cuda")
    report.run("no waits", lambda: no_waits(device))
    report.run("one region", lambda: integrations(device))
    report.run("step times", lambda: step_times(device))
    report.run("short fits", lambda: short_fits(device))
    report.run("tests", lambda: [marked_tests(_TESTS)])
    if not arguments.skip_full:
        runs, data = report.folder, arguments.data.resolve()
        report.run("full length", lambda: whole_fits(runs, data, started + _SECONDS))
    print(report.folder / "gpu_check.md")


def machine() -> dict[str, str]:
    """What figures are from."""
    properties = torch.cuda.get_device_properties(0)
    memory = f"{properties.total_memory / 2**30:.0f} GiB"
    return {
        "device": f"{properties.name}, {memory}",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
    }


def no_waits(device: torch.device) -> Iterator[Row]:
    """A row for every family and precision without a scaler of gradients, which waits."""
    for name in FAMILIES:
        for precision in ("32-true", "bf16-mixed"):
            yield attempted(
                f"{name}, {precision}", lambda name=name, kind=precision: _waits(name, device, kind)
            )


def _waits(name: str, device: torch.device, precision: str) -> Row:
    places = places_of_waits(name, device, precision)
    found = "; ".join(places) or "no step waits for the device"
    return Row(f"{name}, {precision}", found, not places, {"places": places})


if __name__ == "__main__":
    main()
