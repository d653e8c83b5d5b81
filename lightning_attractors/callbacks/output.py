"""Where a run's files and figures go."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from lightning_attractors.writing import run_folder, write_atomically

__all__ = ["log_figure", "log_scalars", "run_folder", "write_atomically"]


def log_scalars(trainer: L.Trainer, values: dict[str, float]) -> None:
    """Send scalars to every logger at the present step."""
    for logger in trainer.loggers:
        logger.log_metrics(values, step=trainer.global_step)


def log_figure(trainer: L.Trainer, name: str, figure: Figure) -> None:
    """Send a figure to every TensorBoard logger at the present step."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(name, figure, global_step=trainer.global_step)
