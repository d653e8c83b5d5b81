import pytest
import torch

from lightning_attractors.linalg.gram_iteration import gram_bounds, largest_eigenvalues


@pytest.mark.parametrize("looseness", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_no_norm_exceeds_its_bound_and_the_largest_is_near(dtype, looseness):
    matrices = torch.randn(20, 4, 7, dtype=dtype) * torch.logspace(-2, 1, 20)[:, None, None]
    true = torch.linalg.matrix_norm(matrices.to(torch.complex128), 2)
    bounds = gram_bounds(matrices, looseness)
    assert bounds.dtype == torch.float64
    assert (bounds >= true).all()
    assert bounds.max() <= (1 + looseness) * true.max()


def test_the_largest_eigenvalue_lies_between_its_bounds():
    factors = torch.randn(30, 4, 3, dtype=torch.complex128)
    gram = factors @ factors.mH
    true = torch.linalg.eigvalsh(gram)[:, -1]
    lower, upper = largest_eigenvalues(gram)
    assert (lower <= true).all()
    assert (true <= upper).all()
    # of one vector alone, and of a multiple of an isometry, both are exact
    vector = torch.randn(1, 4, 1, dtype=torch.float64)
    exact = torch.stack([(vector @ vector.mT)[0], 3 * torch.eye(4, dtype=torch.float64)])
    for bound in largest_eigenvalues(exact):
        assert bound.tolist() == pytest.approx([vector.square().sum().item(), 3], rel=1e-5)
