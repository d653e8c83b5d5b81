import math

import pytest
import torch

from lightning_attractors.dynamics.planted import (
    ProjectedCoupling,
    SpectralCoupling,
    block_patterns,
    couplings,
    make_coupling,
)
from lightning_attractors.errors import SettingError

PLANTED = block_patterns(3, 20, low=-0.5, high=0.5)


SHARED, DISTINCT = [7.0, 7.0, 7.0], [2.0, -3.0, 5.0]


def perturbed(name, eigenvalues=None):
    values = None if eigenvalues is None else torch.tensor(eigenvalues)
    made = make_coupling(name, PLANTED, values).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture(params=["spectral", "projected"])
def coupling(request):
    return perturbed(request.param)


def test_planted_columns_are_in_the_kernel(coupling):
    assert (coupling.matrix() @ PLANTED.double().T).abs().max() < 1e-12


@pytest.mark.parametrize("eigenvalues", [SHARED, DISTINCT])
@pytest.mark.parametrize("name", ["spectral", "projected"])
def test_planted_columns_are_eigenvectors(name, eigenvalues):
    coupling = perturbed(name, eigenvalues)
    planted, values = PLANTED.double().T, torch.tensor(eigenvalues).double()
    torch.testing.assert_close(coupling.matrix() @ planted, planted * values)
    found = coupling.eigenvalues()
    for value in eigenvalues:
        assert (found - value).abs().min() < 1e-8
    modes = coupling.modes().detach()
    transformed = torch.linalg.solve(modes, coupling.matrix().detach() @ modes)
    # The planted span is invariant, and the other modes are modes: nothing of theirs leaks into it.
    assert transformed[3:, :3].abs().max() < 1e-8
    assert transformed[:3, 3:].abs().max() < 1e-7


def test_kernel_is_exact_in_a_float64_copy_of_a_float32_coupling():
    patterns = block_patterns(3, 20, low=-0.3, high=0.3)
    coupling = make_coupling("projected", patterns).double()
    assert (coupling.matrix() @ patterns.double().T).abs().max() < 1e-13


def test_eigenvalues_are_those_of_the_matrix(coupling):
    expected = torch.linalg.eigvals(coupling.matrix().detach())
    reported = coupling.eigenvalues()
    assert reported.shape == (20,)
    distances = (reported[:, None] - expected[None, :]).abs()
    assert distances.min(dim=1).values.max() < 1e-9
    assert distances.min(dim=0).values.max() < 1e-9


def test_modes_are_a_basis_of_invariant_subspaces(coupling):
    modes, matrix = coupling.modes().detach(), coupling.matrix().detach()
    assert torch.linalg.cond(modes) < 1e6
    transformed = torch.linalg.solve(modes, matrix @ modes)
    # Real modes make A block diagonal: single eigenvalues and, for conjugate pairs, blocks of two.
    values, counts = transformed.abs().gt(1e-7).sum(dim=0).unique(return_counts=True)
    assert values.max() <= 2
    assert counts.sum() == 20
    assert transformed[:, :3].abs().max() < 1e-9


def test_spectral_matrix_is_assembled_from_its_eigenpairs():
    coupling = SpectralCoupling(PLANTED).double()
    modes = coupling.modes()
    values = torch.cat([torch.zeros(3), coupling.trained_eigenvalues])
    expected = modes @ torch.diag(values) @ torch.linalg.inv(modes)
    torch.testing.assert_close(coupling.matrix(), expected)


def test_spectral_coupling_starts_as_published():
    coupling = SpectralCoupling(block_patterns(3, 400, low=-0.5, high=0.5))
    modes = coupling.modes().detach()
    torch.testing.assert_close(modes.T @ modes, torch.eye(400), atol=1e-4, rtol=0)
    assert abs(coupling.trained_eigenvalues.mean() + 5) < 0.2
    assert abs(coupling.trained_eigenvalues.std() - 1) < 0.2


def test_projected_matrix_differs_from_m_only_on_the_planted_span():
    coupling = ProjectedCoupling(PLANTED).double()
    vector = torch.randn(20, dtype=torch.float64)
    basis = coupling.planted_basis()
    free = vector - basis @ (basis.T @ vector)
    torch.testing.assert_close(coupling.matrix() @ vector, coupling.weight @ free)


def disc(center, radius):
    return torch.tensor(center - radius), torch.tensor(center + radius)


@pytest.mark.parametrize(("center", "radius"), [(-3.0, 5.0), (0.5, 2.0)])
def test_constrain_brings_every_eigenvalue_into_the_disc(coupling, center, radius):
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.mul_(-3)
    before = coupling.eigenvalues()
    assert (before - center).abs().max() > radius + 1
    coupling.constrain_(*disc(center, radius))
    distances = (coupling.eigenvalues() - center).abs()
    assert distances.max() == pytest.approx(radius)


@pytest.mark.parametrize("name", ["spectral", "projected"])
def test_constrain_looks_at_trained_eigenvalues_only(name):
    coupling = perturbed(name, SHARED)
    coupling.constrain_(*disc(-1.0, 2.0))  # the planted 7 lies outside
    before = coupling.matrix().detach().clone()
    trained = coupling.eigenvalues()
    trained = trained[(trained - 7).abs() > 1e-6]
    assert (trained + 1).abs().max() == pytest.approx(2.0)
    coupling.constrain_(*disc(-1.0, 2.0))
    torch.testing.assert_close(coupling.matrix(), before)


def test_constrain_leaves_a_coupling_inside_the_disc_alone(coupling):
    before = {name: value.clone() for name, value in coupling.state_dict().items()}
    coupling.constrain_(*disc(0.0, float(coupling.eigenvalues().abs().max()) + 1.0))
    coupling.constrain_(*disc(0.0, torch.inf))
    assert all(torch.equal(value, before[name]) for name, value in coupling.state_dict().items())


@pytest.mark.parametrize("name", ["spectral", "projected"])
def test_gradients_match_finite_differences(name):
    coupling = make_coupling(name, block_patterns(2, 5, low=-0.5, high=0.5)).double()
    parameters = list(coupling.parameters())

    def matrix(*values):
        names = [key for key, _ in coupling.named_parameters()]
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(_Matrix(coupling), {f"inner.{k}": v for k, v in state.items()}, ())

    assert torch.autograd.gradcheck(matrix, [p.detach().clone().requires_grad_() for p in parameters])


class _Matrix(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self):
        return self.inner.matrix()


def test_dependent_columns_and_unknown_names_are_refused():
    with pytest.raises(SettingError, match="planted"):
        SpectralCoupling(torch.ones(2, 6))
    with pytest.raises(SettingError, match=r"coupling='dense'"):
        make_coupling("dense", PLANTED)


@pytest.mark.parametrize("radius_share", [0.9, 1.1])
def test_many_nodes_are_constrained_as_few_are(radius_share, monkeypatch):
    few, many = (make_coupling("projected", block_patterns(3, 60, low=-0.5, high=0.5)) for _ in range(2))
    many.load_state_dict(few.state_dict())
    radius = radius_share * float((few.eigenvalues() + 3.0).abs().max())
    ends = torch.tensor(-3.0 - radius), torch.tensor(-3.0 + radius)
    few.constrain_(*ends)
    computed = []
    eigenvalues = torch.linalg.eigvals
    monkeypatch.setattr(couplings, "MOST_NODES_BY_EIGENVALUES", 8)
    monkeypatch.setattr(
        couplings.torch.linalg, "eigvals", lambda m: computed.append(len(m)) or eigenvalues(m)
    )
    many.constrain_(*ends)
    many.constrain_(*(math.inf * end for end in ends))  # no disc
    assert torch.equal(few.weight, many.weight)
    # those of all nodes only where something is outside
    assert (60 in computed) == (radius_share < 1)
