"""The table that a run ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from lightning_attractors.callbacks import RobustnessCurve, StabilityCertificate
from lightning_attractors.contracts import best_weights
from lightning_attractors.norms import NORMS

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
            table.add_row("stable attractors", _verdict(callback))
        if isinstance(callback, StabilityCertificate) and callback.trap_report:
            table.add_row("traps", str(callback.trap_report))
        if isinstance(callback, StabilityCertificate) and callback.gain_bounds:
            bounds = callback.gain_bounds.items()
            table.add_row("gain bounds", ", ".join(f"{name} {bound:.4g}" for name, bound in bounds))
        if isinstance(callback, RobustnessCurve):
            for name, found in callback.results.items():
                R = f"{found['R']:.4g} ± {found['uncertainty']:.1g}" if found["fitted"] else found["reason"]
                table.add_row(f"robustness R, {name}", R)
            if (proved := callback.certificate) and proved["median_radius"] is not None:
                table.add_row(
                    f"certified {NORMS[proved['norm']]} radius, median", f"{proved['median_radius']:.4g}"
                )
    table.add_row("training time", f"{training_seconds:.1f} s")
    for label, name in (
        ("config", "config.yaml"),
        ("certificate", "stability.json"),
        ("pictures", "figures"),
        ("robustness", "robustness"),
    ):
        if (folder / name).exists():
            table.add_row(label, str(folder / name))
    best = best_weights(trainer)
    if best:
        table.add_row("best checkpoint", _brief(Path(best)))
    table.add_row("logs", str(folder))
    if any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers):
        table.add_row("watch", f"tensorboard --logdir {folder.parent}")
    Console().print(table)
    return list(zip(*(column.cells for column in table.columns), strict=True))


def _brief(path: Path) -> str:
    """The path from the present folder on, if it lies there."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _verdict(callback: StabilityCertificate) -> str:
    certificates = callback.certificates or []
    stable = sum(certificate.stable for certificate in certificates)
    worst = max((certificate.flow.spectrum for certificate in certificates), key=lambda flow: flow.abscissa)
    text = f"{stable}/{len(certificates)}, worst eigenvalue {worst.abscissa:+.4g} ± {worst.error_bound:.1g}"
    radii = [certificate.step.spectrum.radius for certificate in certificates if certificate.step is not None]
    return f"{text}, step map radius {max(radii):.4g}" if radii else text
