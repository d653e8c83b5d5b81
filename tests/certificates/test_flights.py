import dataclasses

import pytest
import torch
from flying import (
    flight_of_small,
    flown,
    margins,
    on_sphere,
    small_model,
    towards,
    uncoupled,
    worst_directions,
)

from lightning_attractors.certificates import euler_flights, flights
from lightning_attractors.certificates.euler_flights import prepare
from lightning_attractors.certificates.flights import flight
from lightning_attractors.certificates.tubes import Remainders, ball, spectral_norm
from lightning_attractors.dynamics import STEPS
from lightning_attractors.dynamics.planted import DoubleWellField, FiringRateField, HillGain
from lightning_attractors.errors import SettingError

KINDS = ["wells", "rates"]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=[True, False], ids=["second", "first"])
def order(request, monkeypatch):
    """Tubes that keep second order, and tubes that do not."""
    if not request.param:
        monkeypatch.setattr(flights, "MOST_NODES_OF_SECOND_ORDER", 0)


def tubes_from(flight, states, radii, norm):
    tube = ball(states, radii, norm, flight.second_order)
    tubes = [tube]
    for _ in range(flight.steps):
        tubes.append(flight.step(tubes[-1]))
    return tubes


def climbing(flight, tubes, starts, norm, radii, generator, steps=8):
    """Directions (D, B, N) from which ascent drives one node at one step as far as it gets."""
    u = on_sphere((40, *starts.shape), norm, generator)
    at = torch.randint(1, flight.steps + 1, (40,), generator=generator)
    node = torch.randint(0, flight.nodes, (40,), generator=generator)
    for _ in range(steps):
        u.requires_grad_()
        passed = flown(flight, starts + radii[:, None] * u)
        centers = torch.stack([tube.center for tube in tubes])
        off = passed[at, torch.arange(40), :, node] - centers[at, :, node]
        (slope,) = torch.autograd.grad(off.abs().sum(), u)
        u = towards(u.detach() + towards(slope, norm), norm)
    return u


def escapes(flight, tubes, passed, labels):
    """At how many steps of which trajectories (steps + 1, D, B, N) a state or a margin is not in the tube."""
    found = 0
    for tube, states in zip(tubes, passed, strict=True):
        assert flight.within(tube).all()
        found += int(((states - tube.center).abs() > tube.reach()).any(dim=2).sum())
        found += int((margins(flight, states, labels) < flight.margins(tube, labels)).any(dim=2).sum())
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("integrator", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_trajectory_leaves_its_tube_at_any_step(kind, integrator, norm, order, generator):
    model = small_model(kind, integrator, steps=12)
    flight = flight_of_small(model)
    images = torch.rand(3, *model.image_shape, generator=torch.Generator().manual_seed(1))
    starts, labels = images.flatten(1).double(), torch.tensor([0, 1, 2])
    radii = torch.tensor([0.01, 0.03, 0.05], dtype=torch.float64) / (3 if norm == "linf" else 1)
    tubes = tubes_from(flight, starts, radii, norm)
    directions = torch.cat(
        [
            on_sphere((300, *starts.shape), norm, generator),
            worst_directions(tubes, norm),
            climbing(flight, tubes, starts, norm, radii, generator),
        ]
    )
    inside = starts + (1 - 1e-12) * radii[:, None] * directions
    assert escapes(flight, tubes, flown(flight, inside), labels) == 0

    # float32 numbers near the sphere may lie beyond it: they are drawn in a little
    near = (starts + (1 - 1e-5) * radii[:, None] * directions).float()
    running = [x.double().view_as(near) for x in model.states(near.reshape(-1, *model.image_shape))]
    assert escapes(flight, tubes, torch.stack(running), labels) == 0
    final = model.final_state(near.reshape(-1, *model.image_shape)).double().view_as(near)
    assert ((final - tubes[-1].center).abs() <= tubes[-1].reach()).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("integrator", ["euler", "heun", "rk4"])
def test_the_tube_of_a_point_holds_the_run_in_float32_and_is_thin(kind, integrator, generator):
    model = small_model(kind, integrator, steps=12)
    flight = flight_of_small(model)
    images = torch.rand(20, *model.image_shape, generator=generator)
    tubes = tubes_from(flight, images.flatten(1).double(), torch.zeros(20).double(), "l2")
    for tube, states in zip(tubes, model.states(images), strict=True):
        assert ((states.double() - tube.center).abs() <= tube.reach()).all()
    assert tubes[-1].reach().median() < 1e-3
    logits = model(images).double()
    for label in range(3):
        labels = torch.full((20,), label)
        found = (logits[:, [label]] - logits).scatter(1, labels[:, None], torch.inf)
        assert (flight.margins(tubes[-1], labels) <= found).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_tube_with_half_the_remainder_is_caught(norm, order, monkeypatch):
    flight = uncoupled()
    starts = torch.full((1, 3), 0.5, dtype=torch.float64)
    labels, radii = torch.tensor([0]), torch.full((1,), 0.4, dtype=torch.float64)

    def found():
        tubes = tubes_from(flight, starts, radii, norm)
        directions = worst_directions(tubes, norm)
        return escapes(flight, tubes, flown(flight, starts + (1 - 1e-12) * radii * directions), labels)

    assert found() == 0
    whole = Remainders.add_sum
    halved = lambda self, terms: whole(self, [(s / 2, v, length) for s, v, length in terms])  # noqa: E731
    monkeypatch.setattr(Remainders, "add_sum", halved)
    assert found() > 0


def test_the_bound_of_a_node_alone_is_reached():
    flight = uncoupled()
    starts = torch.full((1, 3), 0.5, dtype=torch.float64)
    tube = tubes_from(flight, starts, torch.full((1,), 0.4, dtype=torch.float64), "l2")[-1]
    ends = flown(flight, starts + 0.4 * torch.eye(3, dtype=torch.float64))[-1]
    torch.testing.assert_close((ends - tube.center).abs().diagonal(), tube.reach()[0], rtol=1e-4, atol=0)


def test_a_tube_that_meets_the_clip_and_one_of_no_numbers_are_not_within():
    flight = dataclasses.replace(flight_of_small(small_model("wells")), bound=1.0)
    starts = torch.tensor([[0.5], [0.9], [0.5]]).expand(3, 8).double()
    tube = ball(starts, torch.tensor([0.2, 0.2, torch.nan]).double())
    assert flight.within(tube).tolist() == [True, False, False]
    assert not (flight.margins(flight.step(tube), torch.tensor([0, 0, 0]))[2, 1:] > 0).any()


def test_a_field_that_does_not_say_how_it_bends_is_refused_in_one_line():
    class Tanh(HillGain):
        def pointwise(self):
            return None

    attractors = torch.eye(3)
    field = FiringRateField(torch.eye(3), Tanh(0.1))
    with pytest.raises(SettingError, match="field='FiringRateField': must say how its nodes act") as refusal:
        flight(field, 0.1, 5, "euler", None, attractors, attractors, torch.zeros(3))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_prepared_is_what_autograd_finds(kind, generator):
    flight = flight_of_small(small_model(kind, nodes=9, steps=8))
    starts = torch.rand(4, 9, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 2, 0])
    prepared = prepare(flight, starts, labels)
    passed = flown(flight, starts)
    torch.testing.assert_close(prepared.centers, passed)
    for b in range(4):
        for k in range(9):
            jacobian = torch.autograd.functional.jacobian(lambda x, k=k: flown(flight, x, k)[-1], starts[b])
            torch.testing.assert_close(prepared.rows[k, b], jacobian.norm(dim=1), rtol=1e-8, atol=0)
            if k < 8:
                one = torch.autograd.functional.jacobian(flight.state_step, passed[k, b])
                exact, norm = torch.linalg.matrix_norm(jacobian, 2), torch.linalg.matrix_norm(one, 2)
                assert exact * (1 - 1e-12) <= prepared.norms[k, b] <= exact * (1 + 1e-6)
                assert norm * (1 - 1e-12) <= prepared.jacobians[k, b] <= 2 * norm
                ends = lambda x, k=k: flown(flight, x, flight.steps - k - 1)[-1]  # noqa: E731
                last = lambda x, b=b, ends=ends: relative(flight, ends(x), labels[b])  # noqa: E731
                gradients = torch.autograd.functional.jacobian(last, passed[k + 1, b])
                torch.testing.assert_close(prepared.adjoints[k, b], gradients)
        last = lambda x, b=b: relative(flight, flown(flight, x)[-1], labels[b])  # noqa: E731
        gradients = torch.autograd.functional.jacobian(last, starts[b])
        torch.testing.assert_close(prepared.gradients[b], gradients.norm(dim=1), rtol=1e-8, atol=1e-12)
    coupling = flight.dt * flight.coupling
    assert prepared.coupling_norm == pytest.approx(float(torch.linalg.matrix_norm(coupling, 2)), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_order_of_every_node_is_half_of_its_hessian(kind, generator):
    flight = flight_of_small(small_model(kind, nodes=6, steps=4))
    starts = torch.rand(2, 6, dtype=torch.float64, generator=generator)
    by_node, lengths = prepare(flight, starts, torch.tensor([0, 1])).seconds
    for b, start in enumerate(starts):
        for k in range(5):
            halves = torch.stack([hessian_after(flight, start, k, node) / 2 for node in range(6)])
            exact = torch.linalg.matrix_norm(halves, 2)
            assert (exact <= by_node[k, b] + 1e-12).all()
            assert (by_node[k, b] <= 6**0.25 * exact + 1e-9).all()
            torch.testing.assert_close(lengths[k, b], torch.linalg.matrix_norm(halves.flatten(1), 2))
    assert by_node[1:].min() > 0


def hessian_after(flight, start, steps, node):
    """Of the state of one node after so many steps, with respect to the state before."""
    return torch.autograd.functional.hessian(lambda x: flown(flight, x, steps)[-1][node], start)


def relative(flight, state, label):
    logits = state @ flight.readout.T + flight.offsets
    return logits[label] - logits


def largest_held(prepared, count):
    """The largest radius that a bisection finds, for every image."""
    low, high = torch.zeros(count).double(), torch.full((count,), 4.0).double()
    for _ in range(20):
        middle = (low + high) / 2
        held = prepared.holds(middle)
        low, high = torch.where(held, middle, low), torch.where(held, high, middle)
    return low


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_prepared_flight_holds_no_start_contradicts(kind, generator):
    model = small_model(kind, nodes=9, steps=15)
    flight = flight_of_small(model)
    starts = torch.rand(12, 9, dtype=torch.float64, generator=generator).float().double()
    labels = (flown(flight, starts)[-1] @ flight.readout.T + flight.offsets).argmax(dim=1)
    radii = largest_held(prepare(flight, starts, labels), 12)
    assert (radii > 1e-3).sum() >= 6
    tubes = tubes_from(flight, starts, radii, "l2")
    directions = [on_sphere((2000, 12, 9), "l2", generator), worst_directions(tubes, "l2")]
    x = torch.cat(directions)
    for _ in range(10):
        ends = margins(flight, flown(flight, starts + radii[:, None] * x)[-1], labels)
        assert (ends.amin(dim=2)[:, radii > 0] > 0).all()
        x = x[-60:].requires_grad_()
        worst = margins(flight, flown(flight, starts + radii[:, None] * x)[-1], labels).amin(dim=2)
        (slope,) = torch.autograd.grad(worst.sum(), x)
        x = towards(x.detach() - towards(slope, "l2"), "l2")


def test_a_prepared_flight_of_one_node_is_nearly_exact_and_with_half_of_the_bend_it_is_caught(monkeypatch):
    # what is below 0 after one step goes to the other well
    flight = dataclasses.replace(uncoupled(nodes=1), steps=1)
    starts, labels = torch.full((1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    line = torch.linspace(0, 2, 200_001, dtype=torch.float64)[:, None]
    reached = flown(flight, starts + torch.cat([line, -line], dim=1)[:, :, None])[-1]
    exact = float(line[(reached < 0).any(dim=1).any(dim=1)][0])
    found = float(largest_held(prepare(flight, starts, labels), 1))
    assert 0.7 * exact < found < exact
    whole = euler_flights.bend
    monkeypatch.setattr(euler_flights, "bend", lambda *arguments: whole(*arguments) / 2)
    assert float(largest_held(prepare(flight, starts, labels), 1)) > exact


def test_the_clip_at_the_last_step_counts():
    flight = uncoupled(nodes=2, dt=0.1, gamma=0.4)
    starts, labels = torch.full((1, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    radius = torch.full((1,), 0.1, dtype=torch.float64)
    assert prepare(flight, starts, labels).holds(radius).all()
    # a coupling that takes the state from below the clip to above it in the one step there is
    pushed = dataclasses.replace(flight, coupling=torch.eye(2).double() * 20, bound=0.9)
    assert flown(pushed, starts)[-1].max() == 0.9
    assert not prepare(pushed, starts, labels).holds(radius).any()


def test_nothing_holds_around_what_is_no_number():
    flight = flight_of_small(small_model("wells"))
    starts = torch.full((2, 8), 0.5, dtype=torch.float64)
    starts[1, 3] = torch.nan
    prepared = prepare(flight, starts, torch.tensor([0, 0]))
    assert not prepared.holds(torch.full((2,), 1e-3).double())[1]


def test_the_steps_of_states_are_those_of_the_field():
    model = small_model("wells", "rk4").double()
    flight, x = flight_of_small(model), torch.rand(5, 8, dtype=torch.float64)
    assert isinstance(model.field(), DoubleWellField)
    expected = STEPS["rk4"](model.field(), x, model.dt)
    torch.testing.assert_close(flight.state_step(x), expected)
    assert spectral_norm(flight.coupling) > 0.1
