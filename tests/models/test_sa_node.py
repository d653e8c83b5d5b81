import math

import pytest
import torch
from refusals import refusal

from lightning_attractors.dynamics.integrate import euler, integrate, rk4, trajectory
from lightning_attractors.errors import SettingError
from lightning_attractors.models import CVFR, SANODE


def make(**settings):
    return SANODE(num_classes=3, image_shape=(1, 4, 5), **{"steps": 10, **settings}).double()


def images(count=4):
    return torch.rand(count, 1, 4, 5, dtype=torch.float64)


@pytest.mark.parametrize("coupling", ["spectral", "projected"])
def test_attractors_are_fixed_points_of_the_flow_and_of_every_step_map(coupling):
    for integrator in ("euler", "rk4"):
        model = make(coupling=coupling, integrator=integrator)
        points = model.equilibria()
        assert points.abs().unique().tolist() == [0.5]
        assert model.vector_field(points).abs().max() < 1e-12
        assert (model.step_map(points) - points).abs().max() < 1e-12


def test_vector_field_is_the_published_one():
    model = make()
    x = torch.randn(6, 20, dtype=torch.float64)
    gamma, beta = abs(model.gamma.item()), 1 / math.sqrt(20)
    expected = -4 * gamma * x * (x**2 - 0.25) + beta * x @ model.coupling.matrix().T
    torch.testing.assert_close(model.vector_field(x), expected)


@pytest.mark.parametrize(("integrator", "step"), [("euler", euler), ("rk4", rk4)])
def test_final_state_is_the_integral_of_the_vector_field(integrator, step):
    model = make(integrator=integrator, dt=0.05, eval_steps=7).eval()
    x = images()
    expected = integrate(model.vector_field, x.flatten(1), 0.05, 7, step)
    torch.testing.assert_close(model.final_state(x), expected)
    torch.testing.assert_close(
        torch.stack(list(model.states(x))), trajectory(model.vector_field, x.flatten(1), 0.05, 7, step)
    )


def test_training_and_evaluation_have_their_own_horizons():
    model = make(steps=3, eval_steps=30)
    x = images()
    trained = model.final_state(x)
    evaluated = model.eval().final_state(x)
    torch.testing.assert_close(trained, integrate(model.vector_field, x.flatten(1), 0.1, 3))
    torch.testing.assert_close(evaluated, integrate(model.vector_field, x.flatten(1), 0.1, 30))


def test_the_bound_is_where_stability_ends():
    model = make(coupling="spectral", gamma=0.7)
    for share, stable in ((0.99, True), (1.01, False)):
        with torch.no_grad():
            model.coupling.trained_eigenvalues[0] = share * model.eigenvalue_bound
        for point in model.equilibria():
            jacobian = torch.func.jacrev(model.vector_field)(point)
            assert (torch.linalg.eigvals(jacobian).real.max() < 0) == stable


@pytest.mark.parametrize("coupling", ["spectral", "projected"])
@pytest.mark.parametrize("factor", [-200.0, 200.0])
def test_keep_stable_makes_flow_and_euler_map_stable(coupling, factor):
    model = make(coupling=coupling)
    with torch.no_grad():
        for parameter in model.coupling.parameters():
            parameter.mul_(factor)
    model.keep_stable_()
    for point in model.equilibria():
        flow = torch.linalg.eigvals(torch.func.jacrev(model.vector_field)(point))
        step = torch.linalg.eigvals(torch.func.jacrev(model.step_map)(point))
        assert flow.real.max() < -1e-3
        assert step.abs().max() < 1 - 1e-4


@pytest.mark.parametrize("coupling", ["spectral", "projected"])
def test_keep_stable_changes_nothing_where_the_wells_alone_are_unstable(coupling):
    model = make(coupling=coupling, dt=3.0)  # 2/(8a²|γ|) is 2.5
    with torch.no_grad():
        for parameter in model.coupling.parameters():
            parameter.mul_(200)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.keep_stable_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_two_classes_fit_on_an_even_number_of_pixels():
    assert SANODE(2, (1, 28, 28)).attractors.shape == (2, 784)


def test_logits_are_exact_under_autocast():
    model = SANODE(num_classes=3, image_shape=(1, 4, 5), steps=2)
    states = torch.randn(5, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.logits_of(states), model.float().logits_of(states))


@pytest.mark.parametrize("kind", [SANODE, CVFR])
def test_models_run_in_bfloat16_altogether(kind):
    model = kind(num_classes=3, image_shape=(1, 4, 5), coupling="projected", steps=2).bfloat16()
    assert model(torch.rand(2, 1, 4, 5, dtype=torch.bfloat16)).isfinite().all()


def test_gamma_counts_by_its_absolute_value():
    model, x = make(), images()
    before = model(x)
    with torch.no_grad():
        model.gamma.neg_()
    torch.testing.assert_close(model(x), before)
    assert model.eigenvalue_bound > 0


def test_logits_are_scaled_overlaps():
    model = make()
    logits = model.logits_of(model.attractors)
    overlaps = logits / model.logit_scale
    torch.testing.assert_close(overlaps.diagonal(), torch.ones(3, dtype=torch.float64))
    confidence = logits.softmax(dim=1).diagonal()
    assert confidence.min() >= 0.99 - 1e-9
    assert confidence.min() < 0.995


def test_logits_are_differentiable_in_the_images():
    model = make(steps=3)
    x = images(2).requires_grad_()
    assert torch.autograd.gradcheck(model, [x])


def test_an_image_at_an_attractor_stays_there_and_is_classified():
    model = make(eval_steps=200).eval()
    with torch.no_grad():
        assert model(model.attractors.view(3, 1, 4, 5)).argmax(dim=1).tolist() == [0, 1, 2]


def test_inversion_recovers_the_image():
    model = make(gamma=0.8)
    x = images()
    final = integrate(model.vector_field, x.flatten(1), 0.005, 500, rk4)
    assert (final - x.flatten(1)).abs().max() > 0.1
    recovered = model.invert(final, time=2.5, dt=0.005)
    torch.testing.assert_close(recovered, x.flatten(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"a": 0.0}, "a=0.0: must be finite and above 0"),
        ({"a": -1.0}, "a=-1.0"),
        ({"gamma": 0.0}, "gamma=0.0"),
        ({"dt": 0.0}, "dt=0.0: must be finite and above 0"),
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"eval_steps": 0}, "eval_steps=0"),
        ({"block": 7}, "block=7: 3 blocks must fit into 20 nodes, so from 1 to 6"),
        ({"integrator": "midpoint"}, "integrator='midpoint'"),
        ({"coupling": "dense"}, "coupling='dense'"),
        ({"num_classes": 21}, "num_classes=21"),
        ({"num_classes": 1}, "num_classes=1: must be at least 2"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(settings, message):
    settings = {"num_classes": 3, "image_shape": (1, 4, 5), **settings}
    assert message in refusal(SANODE, **settings)


def test_inversion_refuses_arguments_out_of_range():
    model, x = make(), images()
    with pytest.raises(SettingError, match="time=0"):
        model.invert(x.flatten(1), time=0)


def test_images_of_another_size_are_refused():
    with pytest.raises(SettingError, match=r"image_shape=\(1, 5, 5\)"):
        make()(torch.rand(2, 1, 5, 5).double())


def test_float32_agrees_with_float64():
    model = make(steps=20)
    x = images()
    exact = model(x)
    torch.testing.assert_close(model.float()(x.float()).double(), exact, atol=1e-4, rtol=1e-4)
