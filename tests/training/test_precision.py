"""``precision: auto`` on machines of both kinds, by measurements that the tests bring along."""

import lightning as L
import pytest
import torch
from torch import nn

from lightning_attractors.errors import SettingError
from lightning_attractors.linalg import ProductSpeed
from lightning_attractors.training import (
    SamePrecision,
    TwoPhaseTrainer,
    faster_precision,
    precision,
    warn_if_slow,
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("LOCAL_RANK", "LIGHTNING_ATTRACTORS_PRECISION"):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)


def machine(float32, bfloat16, asked=None):
    """A machine on which products take so many seconds."""

    def measure(shape, device):
        if asked is not None:
            asked.append((shape, device.type))
        return ProductSpeed(shape, device, float32, bfloat16)

    return measure


FAST, SLOW = machine(3e-3, 1e-3), machine(1e-3, 25e-3)


def test_the_faster_one_is_chosen_for_the_shape_of_the_module(caplog):
    asked = []
    layer = nn.Linear(784, 100)
    assert faster_precision(layer, "cpu", measure=machine(3e-3, 1e-3, asked)) == "bf16-mixed"
    assert faster_precision(layer, "cpu", measure=SLOW) == "32-true"
    assert asked == [((256, 784, 100), "cpu")]


def test_small_models_are_not_measured():
    assert faster_precision(nn.Linear(49, 49), "cpu", measure=FAST) == "32-true"
    assert faster_precision(nn.Linear(49, 49), "cpu", "bf16-mixed", SLOW) == "bf16-mixed"
    assert faster_precision(nn.Conv2d(1, 4, 3), "cpu", measure=FAST) == "bf16-mixed"


def test_one_line_says_what_was_chosen_and_why(monkeypatch):
    lines = []
    monkeypatch.setattr(precision, "rank_zero_info", lines.append)
    faster_precision(nn.Linear(784, 100), "cpu", measure=SLOW)
    (line,) = lines
    assert line.startswith(
        "precision auto: 32-true (products of 256 × 784 and 784 × 100 matrices take 25.00 ms in"
    )
    assert "\n" not in line


@pytest.mark.parametrize(
    ("measure", "begun_with", "goes_on_with"),
    [
        (machine(1e-3, 1e-3), "bf16-mixed", "bf16-mixed"),
        (machine(3e-3, 2e-3), "32-true", "32-true"),
        (SLOW, "bf16-mixed", "32-true"),
        (FAST, "32-true", "bf16-mixed"),
        (FAST, "64-true", "bf16-mixed"),
        (FAST, None, "bf16-mixed"),
        (machine(1.5e-3, 1e-3), None, "bf16-mixed"),
        (machine(1e-3, 1e-3), "bf16", "bf16-mixed"),
        (machine(1.5e-3, 1e-3), "None", "32-true"),
    ],
)
def test_a_resumed_run_keeps_its_precision_unless_that_is_much_slower(measure, begun_with, goes_on_with):
    assert faster_precision(None, "cpu", begun_with, measure) == goes_on_with


def test_processes_that_lightning_starts_choose_what_the_first_one_chose(monkeypatch):
    assert faster_precision(None, "cpu", measure=SLOW) == "32-true"
    assert faster_precision(None, "cpu", measure=FAST) == "bf16-mixed"  # a later run in the same process
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert faster_precision(None, "cpu", measure=SLOW) == "bf16-mixed"
    assert faster_precision(nn.Linear(784, 100), "cpu", measure=SLOW) == "32-true"  # another question


def test_devices_without_either_precision_are_refused():
    with pytest.raises(SettingError, match=r"^precision='auto': cpu has products in neither precision"):
        faster_precision(None, "cpu", measure=machine(float("inf"), float("inf")))
    with pytest.raises(SettingError, match=r"^precision='auto': is measured on mps, cuda, cpu; .*=tpu"):
        faster_precision(None, "tpu", measure=FAST)


def test_the_device_is_the_one_that_lightning_takes(monkeypatch):
    asked = []
    for accelerator in ("auto", "gpu", "cuda", L.pytorch.accelerators.CPUAccelerator()):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        faster_precision(None, accelerator, measure=machine(1e-3, 1e-3, asked))
    assert [device for _, device in asked] == ["cuda", "cuda", "cuda", "cpu"]


def test_a_precision_that_is_slow_here_gets_one_line(monkeypatch):
    lines = []
    monkeypatch.setattr(precision, "rank_zero_warn", lines.append)
    warn_if_slow("bf16-mixed", nn.Linear(4, 4), "cpu", FAST)
    warn_if_slow("32-true", nn.Linear(4, 4), "cpu", SLOW)
    warn_if_slow(None, nn.Linear(4, 4), "cpu", SLOW)
    warn_if_slow("bf16-mixed", nn.Linear(4, 4), "tpu", SLOW)  # of which nothing is known here
    assert lines == []
    warn_if_slow("bf16-mixed", nn.Linear(4, 4), "cpu", SLOW)
    (line,) = lines
    assert line.startswith("trainer.precision=bf16-mixed: products take 25 times as long as in float32")
    assert "--trainer.precision auto or 32-true" in line


@pytest.mark.parametrize("choice", ["32-true", "bf16-mixed"])
def test_a_trainer_takes_auto(choice, monkeypatch):
    monkeypatch.setattr("lightning_attractors.training.two_phase.faster_precision", lambda **_: choice)
    assert TwoPhaseTrainer(precision="auto", accelerator="cpu", logger=False).precision == choice
    assert TwoPhaseTrainer(precision="64-true", accelerator="cpu", logger=False).precision == "64-true"


def test_processes_that_chose_differently_end_with_one_line():
    class Strategy:
        def broadcast(self, value):
            return "bf16-mixed"

    class Process:
        strategy, global_rank = Strategy(), 1

        def __init__(self, precision):
            self.precision = precision

    SamePrecision().setup(Process("bf16-mixed"), None, "fit")
    with pytest.raises(SettingError, match="process 0 has bf16-mixed, process 1 has 32-true"):
        SamePrecision().setup(Process("32-true"), None, "fit")
