"""Where a run's files and figures go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
from matplotlib.figure import Figure

from lightning_attractors.contracts import class_names_of, takes_figures
from lightning_attractors.figures import write_figure
from lightning_attractors.writing import run_folder, write_atomically

__all__ = ["class_names", "keep_figure", "log_figure", "log_scalars", "run_folder", "write_atomically"]

# In which order the figures of the attractors are read: loggers sort them by name.
_READ = ("strip", "trajectories", "attractors", "spectra", "eigenvalues", "mse_over_time", "realisations")


def log_scalars(trainer: L.Trainer, values: dict[str, float]) -> None:
    """Send scalars to every logger at the present step."""
    for logger in trainer.loggers:
        logger.log_metrics(values, step=trainer.global_step)


def log_figure(trainer: L.Trainer, name: str, figure: Figure) -> None:
    """Send a figure to every logger that takes figures, at the present step."""
    for logger in trainer.loggers:
        send = takes_figures(logger)
        if send is not None:
            send(_tag(name), figure, trainer.global_step)


def keep_figure(trainer: L.Trainer, folder: Path, name: str, figure: Figure) -> None:
    """Write a figure to ``figures/<name>.png`` and ``.pdf`` in the run's folder, but for a dry run."""
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        write_figure(folder / "figures" / name, figure)


def class_names(trainer: L.Trainer) -> Sequence[str]:
    """The names of the classes, by the module or else the data module, or none."""
    return class_names_of(trainer.lightning_module) or class_names_of(trainer.datamodule)  # type: ignore[attr-defined]


def _tag(name: str) -> str:
    return f"attractors/{_READ.index(name) + 1}_{name}" if name in _READ else name
