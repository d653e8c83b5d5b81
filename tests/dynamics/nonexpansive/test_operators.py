import copy
import math
import warnings

import pytest
import torch
from nonexpansive_networks import domain

from lightning_attractors.dynamics.nonexpansive import ConvolutionOperator, DenseOperator
from lightning_attractors.errors import NonFiniteError, SettingError

SIZE = (6, 5)
CONVOLUTIONS = [
    (inputs, outputs, kernel, padding)
    for inputs, outputs in ((2, 3), (3, 1), (2, 2))
    for kernel in (1, 3, 5)
    for padding in ("zeros", "circular")
]


def convolution(inputs, outputs, kernel, padding, scale=0.0):
    torch.manual_seed(inputs + 10 * outputs + 100 * kernel)
    operator = ConvolutionOperator(inputs, outputs, kernel, SIZE, padding)
    if scale:
        operator.weight.data = scale * torch.randn_like(operator.weight)
    return operator


def operators(scale=0.0):
    torch.manual_seed(0)
    dense = [DenseOperator(4, 7), DenseOperator(7, 4), DenseOperator(5, 5)]
    for operator in dense:
        if scale:
            operator.weight.data = scale * torch.randn_like(operator.weight)
    return dense + [convolution(*setting, scale) for setting in CONVOLUTIONS]


def matrix(operator):
    """The operator's matrix, float64."""
    twin, shape = copy.deepcopy(operator).double(), domain(operator)
    basis = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    return twin(basis).flatten(1).T.detach()


def singular_values(operator):
    return torch.linalg.svdvals(matrix(operator))


def test_the_adjoint_is_the_transpose():
    for operator in operators(scale=1.0):
        twin, dense = copy.deepcopy(operator).double(), matrix(operator)
        x = torch.randn(3, *domain(operator), dtype=torch.float64)
        image = twin(x)
        y = torch.randn_like(image)
        back = twin.adjoint(y)
        assert back.shape == x.shape
        torch.testing.assert_close((image * y).sum(), (x * back).sum())
        torch.testing.assert_close(back.flatten(1), y.flatten(1) @ dense)


def test_sums_count_the_products_behind_an_output():
    assert DenseOperator(4, 7).sums() == (4, 7)
    assert convolution(2, 3, 5, "zeros").sums() == (50, 75)


def optimised(operator):
    x = torch.ones(1, *domain(operator))
    (-operator(x).square().sum()).backward()
    torch.optim.SGD(operator.parameters(), 0.3).step()


def multiplied(operator):
    operator.weight.data.mul_(3)


def replaced(operator):
    operator.weight.data = 5 * operator.weight.data


def one_entry(operator):
    with torch.no_grad():
        operator.weight.view(-1)[0] += 4


def loaded(operator):
    state = copy.deepcopy(operator.state_dict())
    state["weight"].mul_(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operator.load_state_dict(state)


def doubled(operator):
    operator.double()
    operator.weight.data.mul_(2)


@pytest.mark.parametrize("change", [optimised, multiplied, replaced, one_entry, loaded, doubled])
def test_the_norm_follows_every_change(change):
    for operator in (DenseOperator(6, 4), convolution(2, 3, 3, "zeros"), convolution(2, 2, 3, "circular")):
        before, bound = operator.norm, operator.norm_bound()
        change(operator)
        true = float(singular_values(operator)[0])
        assert true > 1.2 * before  # the change was one
        assert true <= operator.norm_bound() <= operator.norm <= 1.25 * true
        assert operator.norm_bound() > bound


def test_a_copy_has_a_norm_of_its_own():
    operator = DenseOperator(6, 4)
    assert operator.norm <= 1.01
    twin = copy.deepcopy(operator)
    twin.weight.data.mul_(3)
    assert twin.norm >= 2.99
    assert operator.norm <= 1.01


@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_retraction_keeps_the_norm_below_the_radius_and_nears_an_isometry(radius):
    for operator in operators():
        with torch.no_grad():
            operator.weight.mul_(radius).add_(0.05 * radius * torch.randn_like(operator.weight))
        before = singular_values(operator) / radius
        for _ in range(4):
            operator.retract_(radius)
            after = singular_values(operator) / radius
            assert float(after[0]) <= 1
            assert operator.norm <= radius
        rank = min(len(matrix(operator)), matrix(operator).shape[1])
        assert float((after[:rank] - 1).abs().mean()) < 0.05 + 0.5 * float((before[:rank] - 1).abs().mean())


def test_a_dense_retraction_is_the_cubic_on_singular_values():
    operator = DenseOperator(5, 5).double()
    with torch.no_grad():
        operator.weight.mul_(torch.linspace(0.4, 0.7, 5).double())
    left, values, right = torch.linalg.svd(operator.weight.detach())
    operator.retract_(1.0)
    expected = left @ torch.diag(1.5 * values - 0.5 * values**3) @ right
    torch.testing.assert_close(operator.weight.detach(), expected, rtol=1e-5, atol=1e-8)


def test_retraction_survives_a_blow_up():
    for operator in operators():
        operator.weight.data.mul_(100)
        for _ in range(3):
            operator.retract_(1.0)
            values = singular_values(operator)
            assert 0.5 < float(values[0]) <= 1


def test_weights_of_zero_stay_zero_and_what_is_not_finite_is_refused():
    for operator in (DenseOperator(3, 4), convolution(2, 2, 3, "zeros")):
        operator.weight.data.zero_()
        operator.retract_(1.0)
        assert operator.norm_bound() == 0
        assert operator.norm < 1e-15  # room for underflow
        assert bool((operator.weight == 0).all())
        for value in (math.nan, math.inf):
            operator.weight.data.view(-1)[0] = value
            shape = tuple(operator.weight.shape)
            with pytest.raises(NonFiniteError) as caught:
                operator.retract_(1.0)
            assert f"the weight of shape {shape} is not finite: lower the learning rate" in str(caught.value)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("place", [(1, 1), (0, 2), (2, 1)])
def test_newton_schulz_of_one_tap_is_that_of_its_matrix(place, padding):
    operator = ConvolutionOperator(3, 2, 3, SIZE, padding).double()
    tap = 0.5 * torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0][:2] + 0.05
    operator.weight.data.zero_()
    operator.weight.data[:, :, place[0], place[1]] = tap
    operator.retract_(1.0)
    assert float(singular_values(operator)[0]) <= operator.norm < 1  # so that nothing is scaled down
    expected = torch.zeros_like(operator.weight)
    expected[:, :, place[0], place[1]] = 1.5 * tap - 0.5 * tap @ tap.T @ tap
    torch.testing.assert_close(operator.weight.detach(), expected)


def test_newton_schulz_of_a_convolution_is_that_of_its_matrix_within_the_kernel():
    # 3 × 3 taps within a 9 × 9 kernel: nothing of W Wᵀ W is cut off
    operator = ConvolutionOperator(2, 3, 9, (9, 9), "circular").double()
    operator.weight.data.zero_()
    operator.weight.data[:, :, 3:6, 3:6] = 0.1 * torch.randn(3, 2, 3, 3, dtype=torch.float64)
    basis = torch.eye(2 * 81, dtype=torch.float64).view(-1, 2, 9, 9)
    before = operator(basis).flatten(1).T.detach()
    operator.retract_(1.0)
    assert operator.norm < 1  # so that nothing is scaled down
    after = operator(basis).flatten(1).T.detach()
    torch.testing.assert_close(after, 1.5 * before - 0.5 * before @ before.T @ before)


def test_a_checkpoint_of_another_norm_is_named_and_recomputed():
    for operator in (DenseOperator(4, 3), convolution(2, 2, 3, "zeros")):
        state = copy.deepcopy(operator.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            operator.load_state_dict(state)
        state["weight"].mul_(10)
        with pytest.warns(UserWarning, match="the checkpoint gives ‖A‖ = ") as caught:
            operator.load_state_dict(state)
        (message,) = (str(warning.message) for warning in caught)
        assert "\n" not in message
        assert message.endswith(": recomputed")
        assert operator.norm == pytest.approx(10, rel=0.15)


def test_kernels_that_do_not_fit_are_refused():
    for kernel, why in ((4, "must be odd"), (0, "must be odd"), (7, "must not be larger than the images")):
        with pytest.raises(SettingError, match=f"^kernel_size={kernel}: {why}"):
            ConvolutionOperator(1, 1, kernel, SIZE)
    with pytest.raises(SettingError, match=r"^padding='reflect': must be zeros or circular"):
        ConvolutionOperator(1, 1, 3, SIZE, "reflect")
    for sizes in ((0, 1), (1, 0)):
        with pytest.raises(SettingError, match="puts="):
            DenseOperator(*sizes)
        with pytest.raises(SettingError, match="puts="):
            ConvolutionOperator(*sizes, 1, SIZE)


def test_autocast_does_not_coarsen_a_retraction():
    operator, twin = (convolution(3, 3, 3, "zeros", scale=0.3) for _ in range(2))
    operator.retract_(0.7)
    with torch.autocast("cpu", torch.bfloat16):
        twin.retract_(0.7)
    assert torch.equal(operator.weight, twin.weight)
    assert operator.norm == twin.norm


@pytest.mark.parametrize("kernel", [1, 3])
def test_images_of_another_size_than_the_norms_are_refused(kernel):
    operator = ConvolutionOperator(1, 1, kernel, SIZE)
    for call in (operator, operator.adjoint):
        with pytest.raises(SettingError, match=r"^images=\(5, 6\): must be of \(6, 5\), as the norm is"):
            call(torch.zeros(1, 1, 5, 6))
