"""Newton-Schulz iterations against the polynomial of the singular values that they stand for."""

import pytest
import torch

from lightning_attractors.linalg import orthogonalize


def reference(matrix, coefficients, steps):
    """The polynomial applied to singular values, by an SVD in float64."""
    a, b, c = coefficients
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    return left * values @ right


@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (8, 3), (1, 4)])
@pytest.mark.parametrize("coefficients", [(3.4445, -4.775, 2.0315), (1.5, -0.5, 0.0)])
def test_singular_values_follow_the_polynomial(shape, coefficients):
    matrix = torch.randn(shape, dtype=torch.float64)
    found = orthogonalize(matrix, coefficients, steps=4)
    torch.testing.assert_close(found, reference(matrix, coefficients, 4))


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_a_batch_is_its_matrices_one_by_one(shape):
    matrices = torch.randn(3, *shape, dtype=torch.float64)
    expected = torch.stack([orthogonalize(matrix) for matrix in matrices])
    torch.testing.assert_close(orthogonalize(matrices), expected)
    assert orthogonalize(matrices[None]).shape == (1, 3, *shape)


def test_the_scale_of_a_matrix_does_not_matter_and_zeros_stay_zeros():
    matrix = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(orthogonalize(1e6 * matrix), orthogonalize(matrix))
    assert orthogonalize(torch.zeros(4, 6)).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_result_keeps_its_dtype_and_lies_near_an_isometry(dtype):
    found = orthogonalize(torch.randn(20, 30).to(dtype))
    assert found.dtype == dtype
    values = torch.linalg.svdvals(found.double())
    assert values.min() > 0.6
    assert values.max() < 1.25
