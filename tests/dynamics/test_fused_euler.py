import pytest
import torch

from lightning_attractors.dynamics import DoubleWellField, clipped, euler, integrate, integrate_double_well
from lightning_attractors.dynamics.fused_euler import _WORKSPACE


def problem(bound=5.0, scale=0.5, dtype=torch.float64, nodes=9):
    x = torch.rand(4, nodes, dtype=dtype, requires_grad=True)
    coupling = (scale * torch.randn(nodes, nodes, dtype=dtype)).requires_grad_()
    gamma = torch.tensor(0.7, dtype=dtype, requires_grad=True)
    return x, coupling, gamma, bound


def reference(x, coupling, gamma, bound, steps=12):
    return integrate(DoubleWellField(coupling, gamma, 0.5), x, 0.1, steps, clipped(euler, bound))


def fused(x, coupling, gamma, bound, steps=12):
    return integrate_double_well(DoubleWellField(coupling, gamma, 0.5), x, 0.1, steps, bound)


@pytest.mark.parametrize(("bound", "scale"), [(5.0, 0.5), (0.8, 3.0)], ids=["free", "clipped"])
def test_values_and_gradients_are_those_of_the_plain_integration(bound, scale):
    *inputs, bound = problem(bound, scale)
    weights = torch.randn(4, 9, dtype=torch.float64)
    expected, result = reference(*inputs, bound), fused(*inputs, bound)
    if bound < 1:
        assert (expected.abs() == bound).any()
        assert (expected.abs() < bound).any()
    torch.testing.assert_close(result, expected)
    expected_grads = torch.autograd.grad((expected * weights).sum(), inputs)
    grads = torch.autograd.grad((result * weights).sum(), inputs)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad)


def test_gradcheck():
    *inputs, bound = problem()
    assert torch.autograd.gradcheck(lambda *values: fused(*values, bound, steps=4), inputs)


def test_without_gradients_the_values_are_the_same():
    *inputs, bound = problem()
    with torch.no_grad():
        plain = fused(*inputs, bound)
    assert torch.equal(plain, fused(*inputs, bound))


def test_bfloat16_products_keep_a_float32_state():
    x, coupling, gamma, bound = problem(dtype=torch.float32, scale=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = fused(x, coupling, gamma, bound)
    assert mixed.dtype == torch.float32
    exact = fused(x, coupling, gamma, bound)
    difference = (mixed - exact).abs().max()
    assert 0 < difference < 0.02
    grads = torch.autograd.grad(mixed.square().sum(), [x, coupling, gamma])
    expected = torch.autograd.grad(exact.square().sum(), [x, coupling, gamma])
    for grad, expected_grad in zip(grads, expected, strict=True):
        assert grad.dtype == torch.float32
        assert (grad - expected_grad).norm() < 0.05 * expected_grad.norm()


def test_two_graphs_alive_at_once_do_not_share_buffers():
    *inputs, bound = problem()
    fused(*inputs, bound).sum().backward()  # leaves its buffers in the pool
    first, second = fused(*inputs, bound), fused(*inputs, bound)
    (expected,) = torch.autograd.grad(first.sum(), inputs[1])
    (result,) = torch.autograd.grad(second.sum(), inputs[1])
    assert torch.equal(result, expected)


def test_a_graph_can_be_used_again_after_other_graphs_came_and_went():
    *inputs, bound = problem()
    result = fused(*inputs, bound).sum()
    expected = torch.autograd.grad(result, inputs, retain_graph=True)
    fused(*inputs, bound).mean().backward()
    fused(*inputs, bound).mean().backward()
    for grad, expected_grad in zip(torch.autograd.grad(result, inputs), expected, strict=True):
        assert torch.equal(grad, expected_grad)


def test_buffers_are_reused_once_their_graph_is_gone():
    *inputs, bound = problem(nodes=11)

    def pooled():
        return sorted(buffer.data_ptr() for buffer in _WORKSPACE._free if buffer.shape[-1] == 11)

    fused(*inputs, bound).sum().backward()
    first = pooled()
    assert len(first) == len(set(first)) == 2
    fused(*inputs, bound).sum().backward()
    assert pooled() == first
