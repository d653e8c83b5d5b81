"""What happens to runs: power cuts, steps that diverge, signals, and other processes in the same folder."""

import contextlib
import math
import os
import signal
import subprocess
import sys
from subprocess import PIPE

from lightning.pytorch.callbacks import Callback


class KillAt(Callback):
    """SIGKILL of one rank at the given batch of the given epoch."""

    def __init__(self, epoch: int, batch: int, rank: int = 0) -> None:
        self.at = epoch, batch, rank

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx, trainer.global_rank) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


class PoisonAt(Callback):
    """Makes images nan in the given epoch, on one rank, after the first batch, which would be refused."""

    def __init__(self, epoch: int, rank: int = 0) -> None:
        self.epoch, self.rank = epoch, rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx and (trainer.current_epoch, trainer.global_rank) == (self.epoch, self.rank):
            batch[0].fill_(math.nan)


class FailsAt(Callback):
    """Raises an error that nobody has foreseen when a hook is called."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, lambda *arguments: 1 // 0)


class SignalAt(Callback):
    """A signal to the process itself when a hook is called, the first time that the epoch is that one."""

    def __init__(self, name: str, hook: str, epoch: int = 0) -> None:
        self.number, self.epoch = getattr(signal, name), epoch
        setattr(self, hook, self.send)

    def send(self, trainer, *arguments):
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), self.number)


class SignalAfter:
    """An attack that changes nothing, and at its second batch sends SIGTERM to the process itself."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, logits_fn, images, labels, strength):
        self.calls += len(images) > 2  # the rehearsal is on two images
        if self.calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return images


HOLD = """
import sys
from lightning_attractors.cli.locks import Path, hold
hold(Path(sys.argv[1]))
print("has it", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(folder):
    """A process that trains in a folder, and is killed in the end."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout.readline() == "has it\n"
        yield
        other.kill()
