import math
import operator
from decimal import Decimal
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attractors.linalg import active_nodes, power_norms


def trained_like(size, seed, decay=0.8, strength=0.55):
    """−decay I + W of a step, W far from normal as those of trained couplings are."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(size, size, generator=generator, dtype=torch.float64) / math.sqrt(size)
    return strength * random - decay * torch.eye(size, dtype=torch.float64)


def bound(found):
    """Of the modulus of all eigenvalues."""
    return abs(found.center) + found.radius


def modulus(matrix, center=0.0):
    return float((torch.linalg.eigvals(matrix) - center).abs().max())


@pytest.mark.parametrize("size", [50, 300, 500])
def test_the_disc_holds_all_eigenvalues_and_is_tight(size):
    flow = trained_like(size, size)
    step = torch.eye(size).double() + 0.2 * flow
    found = power_norms(step, 0.0, 1.0)
    assert found is not None
    true = modulus(step)
    assert true <= bound(found)
    assert modulus(step, found.center) <= found.radius
    assert 1 - bound(found) >= 0.7 * (1 - true)
    # and the flow's, made of it
    abscissa = float(torch.linalg.eigvals(flow).real.max())
    disc = found.moved(-1.0, 5.0)
    assert abscissa <= disc.center + disc.radius < 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10**6), st.floats(0.5, 1.5), st.floats(0, 3))
def test_what_is_not_inside_is_never_shown_to_be(size, seed, radius, skew):
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix = random + skew * random.triu(1) * size**0.5
    matrix = matrix * (radius / modulus(matrix))
    found = power_norms(matrix, 0.0, 1.0)
    assert found is None or radius * (1 - 1e-9) <= bound(found) < 1
    if radius > 1 + 1e-9:
        assert found is None


@pytest.mark.parametrize("excess", [-1e-4, -1e-12, 0.0, 1e-15, 1e-12])
@pytest.mark.parametrize("shear", [0.0, 1e3, 1e8])
def test_at_the_edge(excess, shear):
    """Known to the last bit: a triangle has its diagonal as eigenvalues, 1 + excess the largest of them."""
    matrix = torch.diag(torch.full((20,), 0.5, dtype=torch.float64))
    matrix[0, 0], matrix[0, 1] = 1 + excess, shear
    found = power_norms(matrix, 0.0, 1.0)
    assert found is None or (bound(found) >= float(matrix[0, 0]) and excess < 0)
    assert excess > -1e-4 or shear > 0 or found is not None


@pytest.mark.parametrize("seed", range(20))
def test_rounding_of_powers_is_covered(seed):
    """Against exact powers: products that cancel leave little but rounding."""
    generator = torch.Generator().manual_seed(seed)
    u, v = torch.randn(2, 6, 1, generator=generator, dtype=torch.float64)
    matrix = 1e4 * u @ (v - u * (u.T @ v) / (u.T @ u)).T
    found = power_norms(matrix, 0.0, 1.0)
    assert found is not None
    exact = [[Fraction(entry) for entry in row] for row in matrix.tolist()]
    for i in range(6):
        exact[i][i] -= Fraction(found.center)
    for log_norm in found.log_norms[:4]:
        largest = max(abs(entry) for row in exact for entry in row)  # at most the norm
        assert math.log(largest) <= log_norm
        columns = list(zip(*exact, strict=True))
        exact = [[sum(map(operator.mul, row, column)) for column in columns] for row in exact]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(0, 10**6), st.sampled_from([0.0, 1e-6, 1e-3, 0.05]))
def test_the_wider_disc_holds_the_eigenvalues_of_matrices_nearby(size, seed, distance):
    step = torch.eye(size).double() + 0.2 * trained_like(size, seed)
    step[:, : size // 3] = torch.diag(step.diagonal())[:, : size // 3]  # inert nodes
    found = power_norms(step, 0.0, 1.0)
    if found is None:
        return
    radius, growth = found.near(distance)
    assert growth >= 1
    left = torch.linalg.eig(step.T).eigenvectors
    right = torch.linalg.eig(step).eigenvectors
    # along the eigenvectors an eigenvalue moves fastest
    for k in range(min(size, 5)):
        change = torch.outer(left[:, k].conj(), right[:, k].conj()).real
        change = change * distance / torch.linalg.matrix_norm(change, 2)
        assert modulus(step + change, found.center) <= radius
        assert modulus(step - change, found.center) <= radius


def test_inert_nodes_are_left_out_of_the_powers_and_not_of_the_disc():
    step = torch.eye(300).double() + 0.2 * trained_like(300, 1)
    inert = torch.arange(300) % 2 == 0
    step[:, inert] = torch.diag(step.diagonal())[:, inert] * 0.5
    assert torch.equal(active_nodes(step), ~inert)
    found = power_norms(step, 0.0, 1.0)
    assert found is not None
    assert found.inert is not None
    assert modulus(step, found.center) <= found.radius
    step[4, 4] = 0.999
    found = power_norms(step, 0.0, 1.0)
    assert found is None or bound(found) >= 0.999
    step[4, 4] = 1.0
    assert power_norms(step, 0.0, 1.0) is None


def test_powers_that_overflow_or_vanish():
    assert power_norms(torch.full((3, 3), 1e200, dtype=torch.float64), 0.0, 1.0) is None
    assert power_norms(torch.full((3, 3), torch.nan).double(), 0.0, 1.0) is None
    found = power_norms(torch.ones(3, 3).double().triu(1), 0.0, 1.0)
    assert found is not None
    assert found.near(0.0)[0] < 1
    tiny = power_norms(1e-160 * torch.ones(3, 3).double(), 0.0, 1.0)
    assert tiny is not None
    assert 3e-160 <= bound(tiny) < 1e-3


@pytest.mark.parametrize("exponent", [-1000, -600, -540, -300, -250, 0, 250, 300, 330])
@pytest.mark.parametrize("looseness", [0.1, math.inf])
def test_a_power_of_two_changes_nothing(exponent, looseness):
    """Entries of both signs: squares that overflow would cancel to nan, and small ones would vanish."""
    matrix, scale = trained_like(20, 0), 2.0**exponent
    farthest = modulus(matrix)
    assert power_norms(scale * matrix, 0.0, 0.99 * scale * farthest, looseness) is None
    one = power_norms(matrix, 0.0, 1.1 * farthest, looseness)
    found = power_norms(scale * matrix, 0.0, 1.1 * scale * farthest, looseness)
    assert one is not None
    assert found is not None
    assert scale * farthest <= bound(found)
    assert bound(found) == pytest.approx(scale * bound(one), rel=1e-9, abs=0)


@pytest.mark.parametrize("size", [1e-60, 1e-20, 1e20, 1e60])
def test_the_growth_is_not_below_that_of_exact_logarithms(size):
    for seed in range(8):
        found = power_norms(size * trained_like(12, seed), 0.0, 2.0 * size)
        assert found is not None
        r, growth = found.near(size * 1e-40)  # so near that all of it is the r of the norm
        logs = [Decimal(log) - 2**i * Decimal(r).ln() for i, log in enumerate(found.log_norms)]
        *shares, last = [log.exp() for log in logs]
        assert growth >= math.prod(1 + share for share in shares) / (1 - last)


def test_powers_of_a_float32_matrix_are_taken_in_float64():
    matrix = trained_like(50, 0).float()
    assert power_norms(matrix, 0.0, 1.5) == power_norms(matrix.double(), 0.0, 1.5)


@pytest.mark.parametrize("radius", [0.5, 0.9, 0.99, 1.01, 2.0])
@pytest.mark.parametrize("looseness", [0.1, math.inf])
@pytest.mark.parametrize("size", [20, 200])
def test_eigenvalues_are_inside_where_they_are(size, looseness, radius):
    matrix = trained_like(size, size)
    values = torch.linalg.eigvals(matrix)
    # the disc of a model's constraint: through a point right of 0, far to the left
    right = float(values.real.max())
    center = right + 0.1 - 8.0
    farthest = modulus(matrix, center)
    inside = power_norms(matrix, center, radius * farthest, looseness) is not None
    assert inside == (radius > 1)
