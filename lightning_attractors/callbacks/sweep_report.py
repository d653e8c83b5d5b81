"""What a run that is a trial of a sweep tells the process that has started it."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection

import lightning as L
from lightning.pytorch.callbacks import Callback

from lightning_attractors.contracts import phases_of


class SweepReport(Callback):
    """Tells a sweep of the metrics at the end of every epoch, and waits until it says to go on.

    The sweep is whoever has started this process with the descriptor of a pipe in its environment; it ends
    hopeless runs. A run whose sweep is there no more ends too, and one that has none is as without this
    callback. Epochs in which a ``TwoPhaseTrainer`` learns filters have no metrics.

    Messages are dictionaries: ``epoch``, and ``metrics`` by their names; or ``missing``, a name, and
    ``logged``, before the first batch.

    Args:
        metrics: the metrics to tell of. Those of the validation have to be logged there.

    Attributes:
        channel: the environment variable with the descriptor.
    """

    channel = "LIGHTNING_ATTRACTORS_SWEEP"

    def __init__(self, metrics: list[str]) -> None:
        self.metrics = metrics
        self._sweep: Connection | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        descriptor = os.environ.get(self.channel)
        if descriptor is not None and stage == "fit" and trainer.is_global_zero and self._sweep is None:
            self._sweep = Connection(int(descriptor))

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        logged = [name for name in trainer.callback_metrics if name.startswith("val")]
        for name in self.metrics:
            if logged and name.startswith("val") and name not in logged:
                self._tell({"missing": name, "logged": logged})

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        phases = phases_of(trainer)
        learns = phases is not None and phases.learns_filters
        logged = {} if learns else trainer.callback_metrics
        metrics = {name: float(logged[name]) for name in self.metrics if name in logged}
        self._tell({"epoch": trainer.current_epoch, "metrics": metrics})

    def _tell(self, message: dict[str, object]) -> None:
        if self._sweep is None:
            return
        try:
            self._sweep.send(message)
            self._sweep.recv()
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)  # as the sweep would, if it could
