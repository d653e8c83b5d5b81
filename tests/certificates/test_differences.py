"""Equilibria that are none, derivatives that are wrong, float64 that is not: never called stable."""

import math

import pytest
import torch

from lightning_attractors.certificates import certify_equilibria, jacobian
from lightning_attractors.certificates.differences import look
from lightning_attractors.errors import SettingError

NODES = 784


class HalfDerivative(torch.autograd.Function):
    """x ↦ 1.1 x of the first node, whose backward says 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return 1.1 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return 0 * grad


def hidden_node(x, node):
    """−x + 1.1 x of one node, seen by nobody: eigenvalue +0.1."""
    only = torch.zeros(x.shape[-1], dtype=x.dtype)
    only[node] = 1.1
    return -x + (only * x).detach()


def hidden_differences(x):
    """Unstable along (1, −1), hidden, and silent along every vector of equal signs."""
    return -x + 1.1 * (x - x.flip(-1)).detach()


def hidden_by_function(x):
    return -x + torch.cat([HalfDerivative.apply(x[..., :1]), 0 * x[..., 1:]], dim=-1)


@pytest.mark.parametrize(
    ("field", "nodes"),
    [
        (lambda x: hidden_node(x, 0), NODES),
        (lambda x: hidden_node(x, NODES - 1), NODES),
        (hidden_differences, 2),
        (hidden_by_function, 3),
        # A coupling of 0.1 from one node to another, that is all.
        (lambda x: -x + 0.1 * x.roll(1, -1).detach() * (torch.arange(x.shape[-1]) == 5), NODES),
    ],
)
def test_a_derivative_that_is_hidden_along_any_direction_is_found(field, nodes):
    with pytest.raises(SettingError, match=r"^vector_field='.*visible to autograd"):
        certify_equilibria(torch.zeros(1, nodes).double(), field)


def test_a_step_map_that_hides_its_derivative_is_found():
    with pytest.raises(SettingError, match=r"^step_map='.*visible to autograd"):
        certify_equilibria(torch.zeros(1, 3).double(), lambda x: -x, lambda x: 0.5 * x + 0.6 * x.detach())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_maps_that_hide_nothing_are_not_accused(scale):
    torch.manual_seed(1)
    weight = torch.randn(60, 60).double() / 8
    x = scale * torch.randn(60).double()
    found = jacobian(lambda states: torch.tanh(states @ weight.T / scale) * scale - states**3 / scale**2, x)
    slope = 1 - torch.tanh(weight @ x / scale) ** 2
    torch.testing.assert_close(found, slope[:, None] * weight - torch.diag(3 * x**2 / scale**2))


@pytest.mark.parametrize("x", [-1e-6, 1e-6, -1e-7, 0.0])
def test_a_parabola_that_misses_zero_has_no_equilibrium(x):
    (certificate,) = certify_equilibria(torch.tensor([[x]], dtype=torch.float64), lambda x: x**2 + 1e-14)
    assert not certificate.flow.is_fixed
    assert not certificate.stable


@pytest.mark.parametrize(("gap", "stable"), [(1e-10, True), (1e-14, True), (1e-26, False)])
def test_a_parabola_that_barely_meets_zero_is_certified_while_its_zeros_can_be_told_apart(gap, stable):
    root = math.sqrt(gap)
    (certificate,) = certify_equilibria(
        torch.tensor([[-0.97 * root]], dtype=torch.float64), lambda x: x**2 - gap
    )
    assert certificate.stable == stable
    bound = certificate.flow.spectrum.error_bound
    assert certificate.flow.spectrum.abscissa == pytest.approx(-2 * root, abs=bound)


def test_a_point_near_its_equilibrium_is_judged_at_the_equilibrium():
    """The slope is −1 at the equilibrium and −0.8 at the point that is given."""
    point = torch.tensor([[1 - 1e-6]], dtype=torch.float64)
    (certificate,) = certify_equilibria(point, lambda x: -(x - 1) - 1e5 * (x - 1) ** 2)
    assert certificate.stable
    assert certificate.flow.spectrum.abscissa == pytest.approx(-1.0, abs=1e-4)
    assert certificate.flow.distance == pytest.approx(1e-6, rel=1e-4)


@pytest.mark.parametrize(
    "field",
    [
        lambda x: -x + 2 * x.abs(),
        lambda x: -x + 2 * x.abs().roll(1, -1),
        lambda x: -x + 2 * x.relu(),
        lambda x: -x + 2 * (x - 1e-7).abs() - 2e-7,
    ],
)
def test_an_equilibrium_in_a_kink_is_not_certified(field):
    """On one side all of these leave 0, and central differences of |x| vanish as its gradient does."""
    (certificate,) = certify_equilibria(torch.zeros(1, 3).double(), field)
    assert not certificate.stable


def test_what_quotients_cannot_tell_from_rounding_is_not_called_stable():
    """Eigenvalues −1e-9 for autograd; 3e-9 with what is hidden."""

    def field(x):
        u, v = x.unbind(-1)
        return torch.stack([-u - v, -u - v - 1e-9 * v + 4e-9 * v.detach()], dim=-1)

    (certificate,) = certify_equilibria(torch.zeros(1, 2).double(), field)
    assert not certificate.stable
    assert 3e-9 < certificate.flow.spectrum.error_bound < 1e-6


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_state_that_is_not_finite_is_no_equilibrium(value):
    points = torch.tensor([[value, 0.0], [0.0, 0.0]], dtype=torch.float64)
    field = lambda x: torch.where(x.isfinite(), -x, torch.zeros_like(x))  # noqa: E731
    found = certify_equilibria(points, field, lambda x: x + 0.1 * field(x))
    assert [(one.flow.is_fixed, one.step.is_fixed, one.stable) for one in found] == [
        (False, False, False),
        (True, True, True),
    ]
    assert found[0].return_time == math.inf


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (1, 3, 1)])
def test_equilibria_of_another_shape_or_none_at_all_are_refused_in_one_line(shape):
    with pytest.raises(
        SettingError, match=r"^equilibria=\(.*\): must have shape \(K, N\), K and N at least 1$"
    ):
        certify_equilibria(torch.zeros(shape).double(), lambda x: -x)


WEIGHT = torch.randn(NODES, NODES, generator=torch.Generator().manual_seed(0)) / 28


@pytest.mark.parametrize(
    ("field", "nodes"),
    [
        (lambda x: -0.3 * x.float().double(), 3),
        (lambda x: (-0.3 * x.float()).tanh().double(), 3),
        (lambda x: -2 * x + (x.float() @ WEIGHT.T).double(), NODES),
        # One node of 784.
        (lambda x: torch.cat([-0.3 * x[:, :1].float().double(), -x[:, 1:]], dim=1), NODES),
    ],
)
@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_float32_within_is_found(field, nodes, offset):
    x = torch.full((1, nodes), offset).double()
    with pytest.raises(SettingError, match=r"^vector_field=.*must compute in float64 throughout"):
        certify_equilibria(x, lambda states: field(states - offset))


def test_bfloat16_within_is_found():
    with pytest.raises(SettingError, match=r"^vector_field="):
        certify_equilibria(torch.zeros(1, 3).double(), lambda x: -x + 0.3 * x.bfloat16().double())


@pytest.mark.parametrize(
    "field",
    [
        lambda x: -x,
        lambda x: (1e3 * x + 1).sin(),
        lambda x: -2 * x + x @ WEIGHT.double().T,
        lambda x: x**3,
        lambda x: (1e3 * x).tanh(),
        lambda x: torch.relu(x - 0.01) - x,
        lambda x: torch.zeros_like(x),
    ],
)
def test_float64_is_not_mistaken_for_less(field):
    x = torch.zeros(NODES).double()
    seen = look(field, x, "field")
    assert seen.is_exact(torch.func.jacrev(lambda state: field(state[None])[0])(x))


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        (lambda x: x.sum(), r"\(\(\), torch.float64\)"),
        (lambda x: x.sum(dim=1), r"\(\(\d+,\), torch.float64\)"),
        (lambda x: x[:, :2], r"\(\(\d+, 2\), torch.float64\)"),
        (lambda x: x.float(), r"\(\(\d+, 3\), torch.float32\)"),
        (lambda x: 0.0, "'float'"),
    ],
)
def test_a_map_that_does_not_give_states_is_refused(field, shown):
    with pytest.raises(
        SettingError, match=rf"^vector_field={shown}: must give torch.float64 of shape \(\d+, 3\)"
    ):
        certify_equilibria(torch.zeros(2, 3).double(), field)


def test_the_curvature_is_that_of_a_known_tensor():
    """F_i = x_i² has ‖F″‖_F = 2 √N, of which the estimate keeps four times."""
    seen = look(lambda x: x**2, torch.zeros(9).double(), "field")
    assert seen.curvature == pytest.approx(4 * 2 * 3, rel=1e-3)
