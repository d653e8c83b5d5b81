import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attractors.certificates import certify_equilibria, jacobian, spectrum
from lightning_attractors.errors import SettingError


def test_spectrum_of_a_known_matrix():
    matrix = torch.tensor([[-1.0, 100.0], [0.0, -2.0]])
    found = spectrum(matrix)
    assert found.abscissa == pytest.approx(-1.0, abs=found.error_bound)
    assert found.radius == pytest.approx(2.0, abs=found.error_bound)
    assert found.error_bound < 1e-10
    vectors = torch.tensor([[1.0, 100.0], [0.0, -1.0]], dtype=torch.float64)
    condition = torch.linalg.cond(vectors / vectors.norm(dim=0))
    assert found.condition == pytest.approx(float(condition), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(0, 10**6), st.floats(-3, 3))
def test_true_eigenvalues_lie_within_the_error_bound(size, seed, exponent):
    generator = torch.Generator().manual_seed(seed)
    # Eigenvalues known exactly: an integer triangle, sheared by integer matrices of determinant 1.
    values = torch.randint(-9, 9, (size,), generator=generator).double()
    triangle = torch.triu(torch.randint(-5, 5, (size, size), generator=generator).double(), 1)
    shear = torch.eye(size).double()
    shear[-1, 0] = round(10**exponent)
    inverse = torch.eye(size).double()
    inverse[-1, 0] = -shear[-1, 0]
    found = spectrum(shear @ (triangle + torch.diag(values)) @ inverse)
    distances = (values.to(found.eigenvalues)[:, None] - found.eigenvalues[None, :]).abs()
    assert distances.min(dim=1).values.max() <= found.error_bound


def test_nothing_is_claimed_of_a_defective_matrix():
    found = spectrum(torch.tensor([[-1e-9, 1.0], [0.0, -1e-9]]))
    assert found.error_bound > 1e-9


def test_nothing_is_claimed_of_entries_that_are_not_finite():
    found = spectrum(torch.tensor([[torch.nan, 0.0], [0.0, -1.0]]))
    assert found.error_bound == math.inf
    (certificate,) = certify_equilibria(torch.zeros(1, 2).double(), lambda x: x * torch.inf)
    assert not certificate.stable


def test_jacobian_of_a_nonlinear_map():
    x = torch.tensor([0.3, -1.2], dtype=torch.float64)
    found = jacobian(lambda states: states**2 @ torch.tensor([[1.0, 2.0], [0.0, 3.0]]).double(), x)
    expected = torch.tensor([[0.6, 0.0], [1.2, -7.2]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def pitchfork(x):
    """x' = x − x³: unstable at 0, stable at ±1 with rate −2."""
    return x - x**3


POINTS = torch.tensor([[0.0], [1.0], [-1.0], [0.5]], dtype=torch.float64)


def test_verdicts_on_a_pitchfork():
    certificates = certify_equilibria(POINTS, pitchfork, lambda x: x + 0.1 * pitchfork(x))
    assert [certificate.stable for certificate in certificates] == [False, True, True, False]
    assert [certificate.flow.is_fixed for certificate in certificates] == [True, True, True, False]
    origin, right = certificates[:2]
    assert origin.flow.spectrum.abscissa == pytest.approx(1.0)
    assert origin.return_time == math.inf
    assert right.flow.spectrum.abscissa == pytest.approx(-2.0)
    assert right.return_time == pytest.approx(0.5)
    assert right.step is not None
    assert right.step.spectrum.radius == pytest.approx(0.8)


def test_a_stable_flow_with_an_unstable_step_map_is_not_certified():
    (certificate,) = certify_equilibria(POINTS[1:2], pitchfork, lambda x: x + 1.1 * pitchfork(x))
    assert certificate.flow_is_stable
    assert not certificate.step_is_stable
    assert not certificate.stable


def test_a_step_map_that_moves_the_equilibrium_is_not_certified():
    (certificate,) = certify_equilibria(torch.zeros(1, 1).double(), lambda x: -x, lambda x: 0.5 * x + 7)
    assert certificate.flow_is_stable
    assert certificate.step is not None
    assert certificate.step.distance == pytest.approx(14.0)
    assert not certificate.stable


@pytest.mark.parametrize(
    ("field", "x"),
    [
        (lambda x: -(x**2 + 5e-7), 5e-4),  # no equilibrium at all
        (lambda x: 1e-7 - 1e-9 * x, 0.0),  # the equilibrium is at 100
    ],
)
def test_a_small_residual_without_an_equilibrium_nearby_is_not_certified(field, x):
    (certificate,) = certify_equilibria(torch.tensor([[x]], dtype=torch.float64), field)
    assert certificate.flow.residual < 1e-6
    assert not certificate.flow.is_fixed
    assert not certificate.stable


@pytest.mark.parametrize("field", [torch.no_grad()(lambda x: 3 * x), lambda x: -x + (5 * x).detach()])
def test_maps_that_hide_their_derivative_are_refused(field):
    with pytest.raises(SettingError, match="visible to autograd"):
        certify_equilibria(torch.zeros(1, 2).double(), field)


def test_a_marginal_spectrum_is_not_certified():
    rotation = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    (certificate,) = certify_equilibria(torch.zeros(1, 2).double(), lambda x: x @ rotation.T)
    assert not certificate.stable
