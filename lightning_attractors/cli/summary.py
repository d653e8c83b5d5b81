"""The table that a run ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from lightning_attractors.callbacks import RobustnessCurve, StabilityCertificate
from lightning_attractors.cli.results import FILE
from lightning_attractors.contracts import best_weights
from lightning_attractors.norms import NORMS
from lightning_attractors.robustness import attack_of, certified_figures, images_of, verdict, without_fit

_METRICS = {
    "test/accuracy": "test accuracy",
    "test/certified_accuracy": "certified accuracy",
    "test/accuracy_spread": "sd over realisations",
    "test/distance_accuracy": "accuracy by distance",
    "test/attractor_accuracy": "attractor accuracy H",
    "test/perfect": "perfect (similarity 1)",
    "test/overlap": "overlap m_f",
}


def print_summary(trainer: L.Trainer, folder: Path, training_seconds: float) -> list[tuple[Any, ...]]:
    """Print test metrics, the verdict on stability, the training time and where everything is.

    Args:
        trainer: the trainer after ``fit`` and ``test``.
        folder: the run's folder.
        training_seconds: wall-clock time of the training.

    Returns:
        The rows of the table.
    """
    table = Table(title="Run finished", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, label in _METRICS.items():
        if key in trainer.callback_metrics:
            table.add_row(label, f"{float(trainer.callback_metrics[key]):.4f}")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StabilityCertificate) and callback.certificates:
            table.add_row("stable attractors", callback.verdict)
        if isinstance(callback, StabilityCertificate) and callback.trap_report:
            table.add_row("traps", str(callback.trap_report))
        if isinstance(callback, StabilityCertificate) and callback.gain_bounds:
            bounds = callback.gain_bounds.items()
            table.add_row("gain bounds", ", ".join(f"{name} {bound:.4g}" for name, bound in bounds))
        if isinstance(callback, RobustnessCurve):
            for found in callback.results.values():
                label = f"{attack_of(found)}, {images_of(found)}"
                table.add_row(label, f"{without_fit(found)}; {verdict(found)}")
            if (proved := callback.certificate) is not None:
                table.add_row(f"certified in {NORMS[proved['norm']]}", certified_figures(proved))
    table.add_row("training time", f"{training_seconds:.1f} s")
    files = {}
    for label, name in (
        ("results", FILE),
        ("metrics", "metrics.csv"),
        ("config", "config.yaml"),
        ("certificate", "stability.json"),
        ("pictures", "figures"),
        ("robustness", "robustness"),
    ):
        if (folder / name).exists():
            files[label] = str(folder / name)
    best = best_weights(trainer)
    if best:
        files["best checkpoint"] = _brief(Path(best))
    files["logs"] = str(folder)
    if any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers):
        files["watch"] = f"tensorboard --logdir {folder.parent}"
    Console().print(table)
    for label, path in files.items():  # outside of the table, whose width would break them
        print(f"{label:<{max(map(len, files))}}  {path}")
    return list(zip(*(column.cells for column in table.columns), strict=True))


def _brief(path: Path) -> str:
    """The path from the present folder on, if it lies there."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
