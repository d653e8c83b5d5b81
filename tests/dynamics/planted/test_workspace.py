import torch

from lightning_attractors.dynamics.planted.workspace import Workspace

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
