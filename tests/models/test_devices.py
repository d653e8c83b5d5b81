"""What a training step makes is made on the device of the model."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gpu_checks.families import FAMILIES, SHAPE, family
from pretended_cuda import CUDA, move, pretended_cuda, there

from lightning_attractors.contracts import FilterPhase
from lightning_attractors.dynamics.planted import (
    DampedNoise,
    DoubleWellField,
    FiringRateField,
    HillGain,
    fused_euler,
)

# Norms of weights are read: there are none where nothing has a value.
READS = ("NonexpansiveNet",)


@pytest.fixture
def built():
    """The models, made before there is a pretended device, with as much of a trainer as a step asks for."""
    strategy = SimpleNamespace(reduce=lambda value, reduce_op: value)
    trainer = SimpleNamespace(
        global_step=3, num_training_batches=4, global_rank=0, current_epoch=0, strategy=strategy
    )

    def build(name):
        model = family(name)
        model._trainer = trainer
        model.log = lambda *_, **__: None
        return model

    return build


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in READS])
def test_steps_and_logits_are_of_one_device(name, built, monkeypatch):
    model = built(name)
    with pretended_cuda(monkeypatch) as asked:
        move(model)
        images = torch.rand(6, *SHAPE, device=CUDA)
        labels = torch.zeros(6, dtype=torch.int64, device=CUDA)
        loss = model.training_step((images, labels), 1)
        assert loss.device == CUDA
        model.constrain_()
        assert model.eval()(images).device == CUDA
        model.validation_step((images, labels), 0)
        if name != "NMODE, intervals":  # whose certificates are read
            model.test_step((images, labels), 0)
        counted = model.val_metrics.get_submodule("accuracy")
        assert {value.device for value in counted.metric_state.values()} == {CUDA}
    assert set(asked) <= {"cuda"}


def test_the_filter_phase_is_of_one_device(built, monkeypatch):
    model = built("KrotovHopfield")
    model.filter_phase = FilterPhase(2, 1.0, None)
    monkeypatch.setattr(torch, "randperm", lambda count, generator: np.arange(count))  # which has values
    with pretended_cuda(monkeypatch) as asked:
        move(model)
        images = torch.rand(6, *SHAPE, device=CUDA)
        assert model.training_step((images, torch.zeros(6, device=CUDA)), 1).device == CUDA
    assert asked == ["cpu"]  # processes draw the same positions, whatever they compute on


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("kind", ["wells", "rates"])
def test_the_hand_written_backward_is_of_one_device(kind, noisy, monkeypatch):
    with pretended_cuda(monkeypatch):
        coupling, gamma = there(torch.empty(9, 9)), there(torch.empty(()))
        field = (
            DoubleWellField(coupling, gamma, 0.5)
            if kind == "wells"
            else FiringRateField(coupling, HillGain())
        )
        noise = DampedNoise(there(torch.empty(3, 9)), 0.1, torch.Generator(CUDA), 1.0) if noisy else None
        step = fused_euler.fused_step_type(field)
        plan = fused_euler._Plan(step(field, 0.1), 0.1, [4], 5.0, noise, torch.bfloat16)
        context = SimpleNamespace(needs_input_grad=[True] * 4)
        context.save_for_backward = lambda *saved: setattr(context, "saved_tensors", saved)
        x, parameters = there(torch.empty(6, 9)), step.parameters(field)
        result = fused_euler._FusedEuler.forward(context, plan, x, coupling, *parameters)
        gradients = fused_euler._FusedEuler.backward(context, result)
        assert all(gradient.device == CUDA for gradient in gradients[1:])
        assert [gradient.shape for gradient in gradients[1:]] == [
            x.shape,
            coupling.shape,
            *[()] * len(parameters),
        ]


def test_a_tensor_that_stays_behind_is_found(monkeypatch):
    left, model = torch.ones(9), torch.nn.Linear(9, 9)
    with pretended_cuda(monkeypatch), pytest.raises(RuntimeError, match="same device"):
        move(model)(torch.rand(2, 9, device=CUDA)) + left
