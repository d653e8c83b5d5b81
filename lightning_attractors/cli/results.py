"""``results.json``: what a run has found, and all that it depends on."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning as L
import torch

from lightning_attractors.callbacks import RobustnessCurve, StabilityCertificate
from lightning_attractors.contracts import class_names_of, data_name
from lightning_attractors.process import processor_name
from lightning_attractors.robustness import versions
from lightning_attractors.writing import run_folder, write_atomically

FILE = "results.json"
_CIRCUMSTANCES = (
    *("settings", "versions", "model", "checkpoint", "stage", "epoch", "global_step", "precision"),
    "attractors",
    *("masking", "Q", "B", "D", "M", "nu", "mse"),
)


def leave_results(trainer: L.Trainer, weights: str | None, seconds: Mapping[str, float]) -> Path:
    """Write what there is after a fit or a test, and give the run's folder.

    Args:
        trainer: the trainer.
        weights: the checkpoint that the metrics are of; None where it is the module as it is.
        seconds: how long what took.
    """
    folder = run_folder(trainer)
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return folder
    module, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    content = {
        "model": type(module).__name__,
        "data": data_name(data) or None,
        "class_names": list(class_names_of(module) or class_names_of(data)),
        "checkpoint": weights,
        "metrics": {name: _number(value) for name, value in sorted(trainer.callback_metrics.items())},
        **_found(trainer, folder),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "seed": os.environ.get("PL_GLOBAL_SEED") and int(os.environ["PL_GLOBAL_SEED"]),
        "precision": str(trainer.precision),
        "processor": _processor(trainer),
        "versions": versions(),
        "git": _git(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    path = folder / FILE
    if "training" not in seconds and path.exists():
        path = folder / f"{path.stem}_test{path.suffix}"  # the training's stays
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return folder


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _found(trainer: L.Trainer, folder: Path) -> dict[str, Any]:
    """What the callbacks have certified and measured."""
    found: dict[str, Any] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StabilityCertificate) and (folder / "stability.json").is_file():
            certificate = json.loads((folder / "stability.json").read_text(encoding="utf-8"))
            found["stability"] = _brief(certificate)
        if isinstance(callback, RobustnessCurve):
            robustness = found.setdefault("robustness", {})
            robustness |= {name: _brief(summary) for name, summary in callback.results.items()}
            for name, summary in (("certified", callback.certificate), ("smoothed", callback.smoothed)):
                if summary is not None:
                    robustness[name] = _brief(summary)
    return found


def _brief(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary without what stands elsewhere in the file, or counts epochs that were not tested."""
    return {name: value for name, value in summary.items() if name not in _CIRCUMSTANCES}


def _processor(trainer: L.Trainer) -> dict[str, Any]:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "processes": trainer.world_size,
    }


def _git() -> dict[str, Any] | None:
    """The commit of the folder that the run was started in, and whether files differ from it."""
    commit = _said("rev-parse", "HEAD")
    return commit and {"commit": commit, "changed": bool(_said("status", "--porcelain", "-uno"))}


def _said(*arguments: str) -> Any:
    """What git says; None where there is no git, or no repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
