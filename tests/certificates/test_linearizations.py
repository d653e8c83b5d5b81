"""The certificate of many nodes, by discs and shared Jacobians, against eigenvalues of few enough of them."""

import pytest
import torch

from lightning_attractors.certificates import certify_equilibria, equilibria, linearizations
from lightning_attractors.models import CVFR, SANODE


@pytest.fixture
def many(monkeypatch):
    """A few nodes count as many from here on."""

    def enter():
        for module in (equilibria, linearizations):
            monkeypatch.setattr(module, "MOST_NODES_BY_EIGENVALUES", 8)

    return enter


def trained_like(family, side, strength, **settings):
    torch.manual_seed(side)
    model = family(3, (1, side, side), coupling="projected", **settings).double().eval()
    with torch.no_grad():
        model.coupling.weight.copy_(strength * torch.randn_like(model.coupling.weight))
    return model


def jacobian_of(model, x):
    return torch.func.jacrev(lambda state: model.vector_field(state[None])[0])(x).detach()


@torch.no_grad()
def certified(model):
    return certify_equilibria(model.equilibria().double(), model.vector_field, model.step_map)


MODELS = [
    (SANODE, 0.5, {}),
    (SANODE, 0.6, {"dt": 0.5}),
    (SANODE, 0.5, {"integrator": "rk4"}),
    (CVFR, 0.3, {}),
    (CVFR, 0.3, {"patterns": "blocks"}),
    (CVFR, 0.3, {"integrator": "heun"}),
]


@pytest.mark.parametrize(("family", "strength", "settings"), MODELS)
@pytest.mark.parametrize("side", [8, 16])
def test_bounds_are_never_below_eigenvalues_and_not_far_above(family, strength, settings, side, many):
    model = trained_like(family, side, strength, **settings)
    exact = certified(model)
    many()
    found = certified(model)
    for few, lots in zip(exact, found, strict=True):
        assert lots.stable
        assert lots.flow.is_fixed
        # attractors in float32 are off by some of its rounding
        assert lots.flow.distance == pytest.approx(few.flow.distance, rel=1e-3, abs=1e-12)
        assert lots.flow.spectrum.is_bound
        assert lots.step.spectrum.is_bound
        true, bound = few.flow.spectrum.abscissa, lots.flow.spectrum.abscissa
        assert true - 1e-6 <= bound <= 0.7 * true
        true, bound = few.step.spectrum.radius, lots.step.spectrum.radius
        assert true - 1e-6 <= bound
        assert 1 - bound >= 0.7 * (1 - true)


@pytest.mark.parametrize("family", [SANODE, CVFR])
def test_what_is_unstable_is_not_certified_whatever_bounds_say(family, many):
    many()
    for strength in (0.9, 1.5, 3.0):
        model = trained_like(family, 16, strength)
        points = model.equilibria().double()
        for x, certificate in zip(points, certified(model), strict=True):
            abscissa = float(torch.linalg.eigvals(jacobian_of(model, x)).real.max())
            assert not (certificate.stable and abscissa >= 0)
            if abscissa > 0:
                spectrum = certificate.flow.spectrum
                assert not spectrum.is_bound
                assert spectrum.abscissa == pytest.approx(abscissa, rel=1e-6)


def test_a_flow_that_is_stable_where_its_steps_are_not(many):
    many()
    (certificate,) = certify_equilibria(torch.zeros(1, 12).double(), lambda x: -x, lambda x: x - 2.5 * x)
    assert certificate.flow_is_stable
    assert not certificate.step_is_stable


def test_a_marginal_flow_of_many_nodes_is_not_certified(many):
    many()
    rotation = torch.zeros(12, 12, dtype=torch.float64)
    rotation[0, 1], rotation[1, 0] = 1.0, -1.0
    rotation -= torch.diag(torch.tensor([0.0, 0.0] + [1.0] * 10, dtype=torch.float64))
    (certificate,) = certify_equilibria(torch.zeros(1, 12).double(), lambda x: x @ rotation.T)
    assert not certificate.stable


def test_fast_oscillations_that_decay_are_certified(many):
    many()
    block = torch.tensor([[-0.1, 1.0], [-1.0, -0.1]], dtype=torch.float64)
    matrix = torch.block_diag(*[block] * 6)
    (certificate,) = certify_equilibria(torch.zeros(1, 12).double(), lambda x: x @ matrix.T)
    assert certificate.stable
    assert certificate.flow.spectrum.abscissa >= -0.1 - 1e-6


def test_one_entry_that_differs_is_not_taken_for_the_same(many):
    many()
    matrix = -torch.eye(12, dtype=torch.float64) + 0.01
    other = matrix.clone()
    other[3, 7] = 1e-6

    def field(x):  # with one Jacobian about 0 and another one about 1
        near, far = x @ matrix.T, (x - 1) @ other.T
        return torch.where(x.mean(dim=1, keepdim=True) < 0.5, near, far)

    points = torch.stack([torch.zeros(12), torch.ones(12)]).double()
    known = linearizations.Linearizations()
    first, second = (known.at(field, x, "vector_field")[0] for x in points)
    assert first is not second
    torch.testing.assert_close(second.matrix, other, rtol=0, atol=1e-12)
    again, _ = known.at(field, points[1] + 1e-3, "vector_field")
    assert again is second


def test_the_jacobian_of_a_flow_is_made_of_its_step(many):
    many()
    model = trained_like(SANODE, 8, 0.5)
    known, x = linearizations.Linearizations(), model.equilibria()[0].double()
    with torch.no_grad():
        step, _ = known.at(model.step_map, x, "step_map")
        flow, _ = known.at(model.vector_field, x, "vector_field")
    expected = jacobian_of(model, x)
    torch.testing.assert_close(flow.matrix, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(flow.inverse @ expected, torch.eye(64).double(), rtol=0, atol=1e-9)
    disc = step.norms.moved(-1.0, 1 / model.dt)
    assert flow.norms.center == pytest.approx(disc.center)
    assert flow.norms.radius == pytest.approx(disc.radius)


def test_the_inverse_of_many_nodes_with_inert_ones(many):
    many()
    matrix = torch.randn(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix[:, ::3] = torch.diag(matrix.diagonal())[:, ::3]
    for moved in (0.0, 1.0):
        found = linearizations.Linearization(matrix, moved).inverse
        expected = torch.linalg.inv(matrix - moved * torch.eye(20))
        torch.testing.assert_close(found, expected)
    matrix[0, 0] = 0.0
    assert not linearizations.Linearization(matrix, 0.0).inverse.isfinite().all()
