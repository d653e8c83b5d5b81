"""Whether a training step of a family waits for the device, and where."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import lightning as L
import torch
from benchmarks.trainers import quiet_trainer
from gpu_checks.families import family, letters
from gpu_checks.waits import place, recorded_waits
from lightning.pytorch.callbacks import Callback

Watch = Callable[[], AbstractContextManager[Any]]


class WatchedSteps(Callback):
    """Runs whole training steps, but for the first and the last of an epoch, under a context manager.

    Of the optimiser's closure to the module's own ``on_train_batch_end``; the transfer of the batch, before,
    is not of a step. What is made once, and read once per epoch, is left to the first and the last.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.steps = 0
        self._open = ExitStack()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        ended = pl_module.on_train_batch_end

        def end(*arguments: Any) -> None:  # Lightning asks callbacks first
            try:
                ended(*arguments)
            finally:
                self._open.close()

        pl_module.on_train_batch_end = end  # type: ignore[method-assign]

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        if 0 < batch[1] < trainer.num_training_batches - 1:
            self.steps += 1
            self._open.enter_context(self.watch())

    def on_exception(self, *_: Any) -> None:
        self._open.close()


def places_of_waits(name: str, device: torch.device, precision: str = "32-true") -> list[str]:
    """Where a family's training steps wait for the device, each place once.

    On CUDA by ``torch.cuda.set_sync_debug_mode``, first "error" and, if that ends the fit, "warn", which
    finds all of them; elsewhere by the operations that would wait.
    """
    places: list[str] = []
    if device.type != "cuda":
        _train(name, device, precision, lambda: recorded_waits(places))
    else:
        try:
            _train(name, device, precision, lambda: _synchronisations("error"))
        except RuntimeError as error:
            if "synchronizing" not in str(error):
                raise
            _train(name, device, precision, lambda: _noted(places))
            places = places or [str(error)]
    return list(dict.fromkeys(places))


def _train(name: str, device: torch.device, precision: str, watch: Watch) -> None:
    model, steps = family(name), WatchedSteps(watch)
    learns = int(name == "KrotovHopfield")
    trainer = quiet_trainer(
        accelerator=device.type,
        devices=1,
        max_epochs=1,
        limit_val_batches=0,
        filter_epochs=learns,
        callbacks=[steps],
        precision=precision,
    )
    trainer.fit(model, datamodule=letters())
    if steps.steps != 2 * (1 + learns):
        raise RuntimeError(f"{steps.steps} steps were watched")


@contextmanager
def _synchronisations(mode: str) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _noted(places: list[str]) -> Iterator[None]:
    """Append the place of every warning of a synchronisation."""

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        if "synchronizing" in str(message):
            places.append(place("synchronises"))

    with warnings.catch_warnings(), _synchronisations("warn"):
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        yield
