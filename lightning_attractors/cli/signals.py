"""SIGTERM and SIGHUP end a run within seconds, with an exit status that says so."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import lightning as L
from lightning.pytorch.callbacks import Callback

from lightning_attractors.callbacks import LastCheckpoint

_SIGNALS = [number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP")]
# Seconds after which a process that is in compiled code, or waits for another one, ends all the same.
_GRACE = 10.0
_taken: set[int] = set()  # those that this process has taken for itself


class Ended(KeyboardInterrupt):
    """The system has asked this process to end: what Ctrl-C leaves, this leaves too.

    Attributes:
        status: what the process is to exit with.
        kept: what is done so far and where it is, in words.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.status = 128 + number
        self.kept = ""

    def __str__(self) -> str:
        return "; ".join(part for part in (super().__str__(), self.kept) if part)


def ended(error: BaseException | None) -> Ended | None:
    """The signal in the chain of causes of an error, if there is one."""
    while error is not None and not isinstance(error, Ended):
        error = error.__cause__ or error.__context__
    return error


def _end(number: int, frame: FrameType | None) -> None:
    for other in _taken:
        signal.signal(other, signal.SIG_IGN)  # to be told once is enough, and what is done is being kept now
    raise Ended(number)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have the signals raise :class:`Ended` here, unless they are handled or ignored already (``nohup``)."""
    ours = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    over = threading.Event()
    watchdog = threading.Thread(target=_watch, args=(reader, ours, over), daemon=True)
    watchdog.start()
    _taken.update(ours)
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        _taken.clear()
        over.set()
        signal.set_wakeup_fd(before)
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        os.close(writer)
        watchdog.join()
        os.close(reader)


def _watch(reader: int, numbers: list[int], over: threading.Event) -> None:
    """End the process if the main thread does not: it hears of signals between two steps of Python only."""
    while told := os.read(reader, 1):
        if told[0] in numbers and not over.wait(_GRACE):
            print(f"error: {Ended(told[0])}", file=sys.stderr, flush=True)
            os._exit(128 + told[0])


def _wait(how: int) -> None:
    if _taken:
        signal.pthread_sigmask(how, _taken)


def _forget() -> None:
    """A process that is forked from this one ends as it would without it, and alone."""
    taken = set(_taken)
    with contextlib.suppress(ValueError):
        if _taken:
            signal.set_wakeup_fd(-1)
        while _taken:
            signal.signal(_taken.pop(), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, taken)


if sys.platform != "win32":  # signals wait until the new process has forgotten
    os.register_at_fork(
        before=lambda: _wait(signal.SIG_BLOCK),
        after_in_parent=lambda: _wait(signal.SIG_UNBLOCK),
        after_in_child=_forget,
    )


class EndsBySignal(Callback):
    """Keeps SIGTERM from Lightning, which looks at it between batches and exits 0; says what is kept."""

    def _take(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if signal.SIGTERM in _taken:
            signal.signal(signal.SIGTERM, _end)

    on_sanity_check_start = on_train_start = _take
    on_validation_start = on_test_start = on_predict_start = _take

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, Ended) and trainer.is_global_zero:
            exception.kept = _kept(trainer)


def _kept(trainer: L.Trainer) -> str:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, LastCheckpoint) and Path(callback.best_model_path).is_file():
            return f"what is done is in {callback.best_model_path}; --ckpt_path last goes on from there"
        if isinstance(callback, LastCheckpoint) and callback.dirpath is not None:
            return f"what is done is in {Path(callback.dirpath).parent}"
    return ""
