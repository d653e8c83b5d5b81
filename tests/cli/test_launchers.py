"""Processes of a run by torchrun's agent or by SLURM, and what becomes of the others when one dies."""

import os
import signal
import time

import pytest
from command_line import RUN, checkpoint, run, small
from lightning.pytorch.utilities import rank_zero_only
from processes import on_processes
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

LETTERS = [*small("sa_node_letters"), "--trainer.devices", 2, "--trainer.strategy", "ddp"]


@pytest.fixture(autouse=True)
def _signals_as_before():
    """The agent leaves handlers of its own in the process that it ran in."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def launched(*arguments):
    """The command line on two processes of torchrun's agent, forked from this one to save the imports."""
    agent = {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "start_method": "fork"}
    config = LaunchConfig(1, 1, 2, monitor_interval=0.1, max_restarts=0, **agent)
    elastic_launch(config, _process)(*arguments)


def _process(*arguments):
    rank_zero_only.rank = int(os.environ["RANK"])
    run(*arguments)


def test_torchrun_makes_one_run_of_two_processes():
    launched("fit", *LETTERS)
    assert (RUN / "results.json").exists()
    assert not RUN.with_name("version_1").exists()
    assert checkpoint()["epoch"] == 0


def as_a_task(*arguments):
    """The command line as srun starts it, on one of two tasks of a node."""
    rank = os.environ.pop("LOCAL_RANK")  # what stands for another launcher
    os.environ |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "attractors"}
    os.environ |= {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": "0", "SLURM_JOB_ID": "1"}
    run(*arguments)


def test_tasks_of_slurm_make_one_run(tmp_path):
    on_processes(2, lambda: as_a_task("fit", *LETTERS), tmp_path)
    assert (RUN / "results.json").exists()
    assert not RUN.with_name("version_1").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_ends_the_others_within_a_minute(rank):
    dies = ["--trainer.callbacks+", "accidents.KillAt", "--trainer.callbacks.epoch", 1]
    dies += ["--trainer.callbacks.batch", 0, "--trainer.callbacks.rank", rank]
    start = time.monotonic()
    with pytest.raises(ChildFailedError):  # of the dead one, or of the other that waits for it in vain
        launched("fit", *LETTERS, "--trainer.max_epochs", 50, *dies)
    assert time.monotonic() - start < 60
    assert checkpoint()["epoch"] == 0  # the last whole epoch's is there, and whole
