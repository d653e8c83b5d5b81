"""Where a run's files and figures go."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from lightning_attractors.writing import write_atomically

__all__ = ["log_figure", "log_scalars", "run_folder", "write_atomically"]


def run_folder(trainer: L.Trainer) -> Path:
    """The folder that holds everything this run leaves.

    It is the logger's folder, or the trainer's root folder without a logger. Call it on every rank: finding
    it out is a collective operation.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


def log_scalars(trainer: L.Trainer, values: dict[str, float]) -> None:
    """Send scalars to every logger at the present step."""
    for logger in trainer.loggers:
        logger.log_metrics(values, step=trainer.global_step)


def log_figure(trainer: L.Trainer, name: str, figure: Figure) -> None:
    """Send a figure to every TensorBoard logger at the present step."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(name, figure, global_step=trainer.global_step)
