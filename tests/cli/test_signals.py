"""SIGTERM and SIGHUP, wherever they come: the exit status of a signal, one line, and a run that goes on."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import RUN, assert_equal_weights, run, small, weights

SETTINGS = [*small("sa_node_letters"), "--model.coupling", "projected", "--trainer.max_epochs", 3]


def ended(capsys, *arguments):
    """The status and the last line of a run that is ended."""
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    return caught.value.code, capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "hook", "status"),
    [
        ("SIGTERM", "on_train_batch_end", 143),
        ("SIGHUP", "on_train_batch_end", 129),
        ("SIGTERM", "on_validation_end", 143),
        ("SIGTERM", "on_train_epoch_end", 143),
    ],
)
def test_a_training_that_is_ended_says_what_is_kept_and_goes_on(name, hook, status, capsys):
    run("fit", *SETTINGS, "--trainer.logger.name", "whole")
    ending = ["--trainer.callbacks+", "accidents.SignalAt", "--trainer.callbacks.name", name]
    ending += ["--trainer.callbacks.hook", hook, "--trainer.callbacks.epoch", 1]
    kept = f"what is done is in {RUN}/checkpoints/last.ckpt; --ckpt_path last goes on from there"
    assert ended(capsys, "fit", *SETTINGS, *ending) == (status, f"error: ended by {name}; {kept}")
    run("fit", *SETTINGS, "--ckpt_path", "last")
    for checkpoint in ("last", "best"):
        assert_equal_weights(weights(name=checkpoint), weights(Path("runs/whole/version_0"), checkpoint))


def test_before_the_first_checkpoint_there_is_nothing_to_go_on_from(capsys):
    ending = ["--trainer.callbacks+", "accidents.SignalAt", "--trainer.callbacks.name", "SIGTERM"]
    ending += ["--trainer.callbacks.hook", "on_fit_start"]
    status, line = ended(capsys, "fit", *SETTINGS, *ending)
    assert (status, line) == (143, f"error: ended by SIGTERM; what is done is in {RUN}")


def test_a_sweep_that_is_ended_leaves_what_it_has_measured(capsys):
    sweep = "{class_path: RobustnessCurve, init_args: {attacks: [{class_path: accidents.SignalAfter, "
    sweep += "strengths: [0.1], name: late}], batch_size: 5, masking: false, confidence: 0}}"
    status, line = ended(capsys, "fit", *SETTINGS, "--trainer.callbacks", f"[{sweep}]")
    assert status == 143
    assert line.startswith("error: ended by SIGTERM; what is done is in ")
    found = json.loads((RUN / "robustness" / "late.json").read_text())
    assert found["complete"] is False


STUCK = """
import hashlib, os, signal, sys, threading
from lightning_attractors.cli import signals
signals._GRACE = 0.2
with signals.ended_by_signals():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # no step of Python's for many minutes
"""


def test_a_process_that_is_in_compiled_code_ends_too():
    stuck = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True)
    assert (stuck.returncode, stuck.stderr) == (143, "error: ended by SIGTERM\n")


CHILD = """
import multiprocessing, signal, time
from lightning_attractors.cli import signals
signals._GRACE = 0.2
with signals.ended_by_signals():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    time.sleep(1)
print(child.exitcode)
"""


def test_the_end_of_a_worker_process_is_not_that_of_the_run():
    parent = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True)
    assert (parent.returncode, parent.stdout) == (0, "-15\n")


def test_a_signal_that_is_ignored_stays_so():
    script = "import os, signal; from lightning_attractors.cli import signals\n"
    script += "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    script += "with signals.ended_by_signals(): os.kill(os.getpid(), signal.SIGHUP)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
