import gc

import torch

from lightning_attractors.dynamics.planted.workspace import Workspace
from lightning_attractors.models import SANODE

CPU = torch.device("cpu")


def test_a_buffer_that_nobody_holds_is_lent_again_and_no_other():
    workspace = Workspace()
    first, second = (workspace.lease((2, 3), torch.float32, CPU) for _ in range(2))
    assert first.buffer.data_ptr() != second.buffer.data_ptr()
    address = first.buffer.data_ptr()
    del first
    for shape, dtype in (((3, 2), torch.float32), ((2, 3), torch.float64)):
        assert workspace.lease(shape, dtype, CPU).buffer.data_ptr() != address
    again = workspace.lease((2, 3), torch.float32, CPU)
    assert again.buffer.data_ptr() == address
    assert again.buffer.shape == (2, 3)


def test_compiled_training_is_silent_and_gives_the_same_gradients(capfd):
    torch.compiler.reset()
    model, images = SANODE(2, (1, 3, 3), steps=3), torch.rand(4, 1, 3, 3)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    gradients = []
    for run in (model, compiled, compiled, model):
        model.zero_grad()
        run(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    gc.collect()
    for found in gradients[1:]:
        for one, expected in zip(found, gradients[0], strict=True):
            torch.testing.assert_close(one, expected)
    assert "Exception ignored" not in capfd.readouterr().err
    torch.compiler.reset()
