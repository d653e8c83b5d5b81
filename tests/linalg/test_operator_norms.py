import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lightning_attractors.errors import SettingError
from lightning_attractors.linalg import (
    convolution_norm,
    matrix_norm,
    operator_norms,
    quick_convolution_norm,
    quick_matrix_norm,
)

MODES = {"zeros": "constant", "circular": "circular"}
CONVOLUTIONS = (convolution_norm, quick_convolution_norm)
MATRICES = (matrix_norm, quick_matrix_norm)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def convolve(x, kernel, padding):
    reach = kernel.shape[-1] // 2
    return functional.conv2d(functional.pad(x, (reach,) * 4, mode=MODES[padding]), kernel)


def true_norm(kernel, image_size, padding):
    """Largest singular value of the matrix that the convolution is."""
    inputs = kernel.shape[1] * math.prod(image_size)
    basis = torch.eye(inputs, dtype=torch.float64).view(inputs, kernel.shape[1], *image_size)
    return float(torch.linalg.matrix_norm(convolve(basis, kernel.double(), padding).flatten(1), 2))


def make_kernel(kind, outputs, inputs, size, seed):
    numbers = generator(seed)
    kernel = torch.randn(outputs, inputs, size, size, generator=numbers)
    if kind == "ones":
        return torch.ones_like(kernel)
    if kind == "low rank":
        return torch.einsum("o,iab->oiab", kernel[:, 0, 0, 0], kernel[0])
    if kind == "sparse":
        return kernel * (torch.rand(kernel.shape, generator=numbers) < 0.15)
    if kind == "modulated":  # the symbol peaks at ±θ
        (first, second, phase), at = torch.rand(3, generator=numbers) * math.pi, torch.arange(size)
        return kernel[:, :, :1, :1] * torch.cos(first * at[:, None] + second * at + 2 * phase)
    return kernel


KINDS = ["random", "ones", "low rank", "sparse", "modulated"]


@given(
    kind=st.sampled_from(KINDS),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.sampled_from([1, 3, 5, 7]),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    scale=st.floats(1e-3, 1e3),
    padding=st.sampled_from(["zeros", "circular"]),
    seed=st.integers(0, 99),
    double=st.booleans(),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_no_convolution_exceeds_its_bounds(kind, channels, size, extra, scale, padding, seed, double):
    image_size = (size + extra[0], size + extra[1])
    kernel = make_kernel(kind, *channels, size, seed) * scale
    kernel = kernel.double() if double else kernel
    true = true_norm(kernel, image_size, padding)
    tight, quick = (bound(kernel, image_size, padding) for bound in CONVOLUTIONS)
    assert tight >= true
    assert quick >= true
    if padding == "circular":
        assert tight <= true * (1 + 1e-8)
        assert quick <= true * 1.12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("channels", "size", "image_size"), [((1, 2), 3, (18, 20)), ((2, 1), 5, (16, 17)), ((1, 1), 7, (16, 16))]
)
def test_bounds_are_close_from_16_by_16_on(kind, channels, size, image_size):
    kernel = make_kernel(kind, *channels, size, seed=size)
    true = true_norm(kernel, image_size, "zeros")
    assert true <= convolution_norm(kernel, image_size, "zeros") <= 1.05 * true
    assert true <= quick_convolution_norm(kernel, image_size, "zeros") <= 1.12 * true


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [5, 7])
def test_what_is_too_large_to_assemble_is_bounded_closely(kind, size, monkeypatch):
    monkeypatch.setattr(operator_norms, "_ASSEMBLED", 0)
    for channels, image_size in (((2, 1), (16, 18)), ((1, 2), (7, 9))):
        kernel = make_kernel(kind, *channels, size, seed=3)
        true = true_norm(kernel, image_size, "zeros")
        found = convolution_norm(kernel, image_size, "zeros")
        assert true <= found
        assert found <= 1.05 * true or min(image_size) < 16


@pytest.mark.parametrize("modes", [20, 100])
def test_fewer_modes_give_a_looser_bound(modes, monkeypatch):
    monkeypatch.setattr(operator_norms, "_ASSEMBLED", 0)
    kernel = make_kernel("random", 2, 2, 7, seed=5)
    tightest = convolution_norm(kernel, (10, 11), "zeros")
    monkeypatch.setattr(operator_norms, "_MODES", modes)
    found = convolution_norm(kernel, (10, 11), "zeros")
    assert true_norm(kernel, (10, 11), "zeros") <= tightest <= found


@pytest.mark.parametrize("length", [4, 16, 31])
def test_a_twisted_torus_is_exact_for_the_kernel_of_ones(length):
    # eigenvalues of the tridiagonal matrix of ones: 1 + 2 cos(πj / (n + 1))
    exact = (1 + 2 * math.cos(math.pi / (length + 1))) ** 2
    found = convolution_norm(torch.ones(1, 1, 3, 3), (length, length), "zeros")
    assert exact <= found <= exact * (1 + 1e-9)


def test_zero_padding_of_a_long_strip_is_that_of_a_sequence():
    kernel = torch.zeros(1, 1, 3, 3)
    kernel[0, 0, 1] = torch.tensor([-1.0, 2.0, -1.0])
    exact = 2 + 2 * math.cos(math.pi / 8)
    assert exact <= convolution_norm(kernel, (3, 7), "zeros") <= exact * (1 + 1e-9)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize(("outputs", "inputs"), [(32, 32), (24, 40)])
def test_power_iteration_from_below_meets_the_bounds(outputs, inputs, padding):
    kernel = make_kernel("random", outputs, inputs, 3, seed=1)
    x = torch.randn(1, inputs, 20, 17, generator=generator(2))
    for _ in range(100):
        y = convolve(x.requires_grad_(), kernel, padding)
        (x,) = torch.autograd.grad(y, x, y.detach())
        x = x / x.norm()
    below = float(convolve(x.double(), kernel.double(), padding).norm() / x.double().norm())
    assert below <= convolution_norm(kernel, (20, 17), padding) <= 1.05 * below
    assert below <= quick_convolution_norm(kernel, (20, 17), padding) <= 1.12 * below


@pytest.mark.parametrize("length", [48, 80])
def test_the_coarse_grid_of_the_quick_bound_misses_no_peak(length):
    for seed in range(8):
        kernel = make_kernel("modulated", 1, 1, 3, seed)
        tight, quick = (bound(kernel, (length, length), "circular") for bound in CONVOLUTIONS)
        assert tight <= quick <= 1.12 * tight


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    rank=st.integers(1, 40),
    exponent=st.integers(-3, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_no_matrix_exceeds_its_bounds(shape, rank, exponent, seed):
    numbers = generator(seed)
    weight = torch.randn(shape[0], rank, generator=numbers) @ torch.randn(rank, shape[1], generator=numbers)
    weight = weight * 10.0**exponent
    true = float(torch.linalg.svdvals(weight.double())[0])
    assert true * (1 + 1e-12) < matrix_norm(weight) <= true * (1 + 1e-9)
    assert true <= quick_matrix_norm(weight) <= 1.09 * true


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_orthogonal_matrix_has_norm_1(dtype):
    # all singular values alike: the worst case of a Frobenius norm, the best of mean and deviation
    weight = torch.linalg.qr(torch.randn(128, 128, generator=generator(0), dtype=torch.float64))[0].to(dtype)
    true = float(torch.linalg.svdvals(weight.double())[0])
    assert true <= quick_matrix_norm(weight) <= 1.01


def test_half_a_projection_is_the_worst_case_of_the_quick_bound():
    weight = torch.diag(torch.arange(128) < 64).float()
    assert 1.02 < quick_matrix_norm(weight) <= 1.09


def test_an_orthogonal_1x1_convolution_is_an_isometry():
    weight = torch.linalg.qr(torch.randn(6, 6, generator=generator(0), dtype=torch.float64))[0]
    for bound in CONVOLUTIONS:
        assert 1 <= bound(weight[:, :, None, None], (1, 5), "zeros") <= 1.09


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 1e20, 1e36])
def test_scales_near_the_ends_of_float32(scale):
    kernel = make_kernel("random", 2, 2, 3, seed=3) * scale
    true = true_norm(kernel.double() / scale, (6, 6), "zeros") * scale
    for bound in CONVOLUTIONS:
        assert true <= bound(kernel, (6, 6), "zeros") <= 1.2 * true
    for bound in MATRICES:
        assert bound(kernel[:, :, 1, 1]) >= float(kernel[:, :, 1, 1].double().abs().max())


def test_norms_near_the_largest_number():
    weight = torch.tensor([[1.5e308]], dtype=torch.float64)
    assert all(bound(weight) >= 1.5e308 for bound in MATRICES)


def test_precision_set_for_one_backend_does_not_undercut_the_norm():
    weight = make_kernel("random", 40, 40, 1, seed=4)[:, :, 0, 0]
    true = float(torch.linalg.svdvals(weight.double())[0])
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        found = [bound(weight) for bound in MATRICES]
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    assert all(true <= bound <= 1.09 * true for bound in found)


def test_zero_and_values_that_are_not_finite():
    for value, expected in ((0.0, 0.0), (math.inf, math.inf), (math.nan, math.inf)):
        kernel = torch.zeros(2, 3, 3, 3)
        kernel[1, 1, 1, 1] = value
        assert [bound(kernel, (4, 4), "zeros") for bound in CONVOLUTIONS] == [expected] * 2
        assert [bound(kernel[:, :, 1, 1]) for bound in MATRICES] == [expected] * 2


def test_reduced_precision_does_not_undercut_the_norm():
    kernel = make_kernel("random", 8, 8, 3, seed=4)
    true = true_norm(kernel, (8, 8), "circular")
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = [bound(kernel, (8, 8), "circular") for bound in CONVOLUTIONS]
            found_matrix = quick_matrix_norm(kernel[:, :, 0, 0])
    finally:
        torch.set_float32_matmul_precision("highest")
    assert true <= found[0] <= true * (1 + 1e-8)
    assert true <= found[1] <= true * 1.12
    assert found_matrix >= float(torch.linalg.svdvals(kernel[:, :, 0, 0].double())[0])


@pytest.mark.parametrize("bound", CONVOLUTIONS)
def test_kernels_that_do_not_fit_are_refused(bound):
    for shape, image_size in (((1, 1, 2, 2), (4, 4)), ((1, 1, 3, 5), (8, 8)), ((1, 1, 5, 5), (8, 4))):
        with pytest.raises(SettingError, match="kernel_size="):
            bound(torch.ones(shape), image_size, "zeros")
    with pytest.raises(SettingError, match="padding='reflect': must be zeros or circular"):
        bound(torch.ones(1, 1, 3, 3), (4, 4), "reflect")
