import dataclasses

import pytest
import torch
from flying import flight_of_small, flown, margins, on_sphere, small_model, towards, worst_directions

from lightning_attractors.certificates import euler_flights, flights, tube_radii
from lightning_attractors.certificates.traps import Traps, find_traps
from lightning_attractors.certificates.tube_radii import basin_radii, class_radii
from lightning_attractors.certificates.tubes import ball
from lightning_attractors.dynamics.planted import Cubic
from lightning_attractors.errors import SettingError


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def images_of(flight, count, generator):
    """States in [0, 1], of float32, and the classes that the map gives them."""
    states = torch.rand(count, flight.nodes, generator=generator).double()
    logits = flown(flight, states)[-1] @ flight.readout.T + flight.offsets
    return states, logits.argmax(dim=1)


def smallest_margin(flight, states, labels, radii, norm, generator, steps=15):
    """The smallest margin at the end (B,) found at these radii: random, worst and descending starts."""
    tube, tubes = ball(states, radii, norm, flight.second_order), []
    for _ in range(flight.steps):
        tube = flight.step(tube)
        tubes.append(tube)
    rows = flight.readout[labels][:, None, :] - flight.readout
    adjoint = towards(tube.mapped(rows).linear, norm).transpose(0, 1)
    u = torch.cat([worst_directions(tubes[-1:], norm), adjoint, -adjoint])
    u = torch.cat([on_sphere((100, *states.shape), norm, generator), u])
    best = torch.full((len(states),), torch.inf, dtype=torch.float64)
    for _ in range(steps):
        u.requires_grad_()
        found = margins(flight, flown(flight, states + radii[:, None] * u)[-1], labels).amin(dim=2)
        best = torch.minimum(best, found.detach().amin(dim=0))
        (slope,) = torch.autograd.grad(found.sum(), u)
        u = towards(u.detach() - 0.5 * towards(slope, norm), norm)
    return best


@pytest.mark.parametrize("kind", ["wells", "rates"])
@pytest.mark.parametrize("integrator", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_attack_at_an_images_own_radius_succeeds(kind, integrator, norm, generator):
    flight = flight_of_small(small_model(kind, integrator, nodes=6, steps=6))
    states, labels = images_of(flight, 8, generator)
    radii = class_radii(flight, states, labels, norm=norm)
    assert (radii > 0.01).sum() >= 4
    assert (smallest_margin(flight, states, labels, radii, norm, generator) > 0)[radii > 0].all()


def test_the_method_for_many_nodes_is_beaten_by_no_attack_either(generator, monkeypatch):
    flight = flight_of_small(small_model("wells", nodes=12, classes=4, steps=10))
    states, labels = images_of(flight, 10, generator)
    for module in (tube_radii, euler_flights):
        monkeypatch.setattr(module, "MOST_NODES_OF_BLOCKS", 5)
    many = class_radii(flight, states, labels)
    assert (many > 0.01).sum() >= 5
    assert (smallest_margin(flight, states, labels, many, "l2", generator) > 0)[many > 0].all()


def test_49_nodes_are_beaten_by_no_attack(generator):
    flight = flight_of_small(small_model("wells", nodes=49, classes=5, steps=6))
    states, labels = images_of(flight, 3, generator)
    radii = class_radii(flight, states, labels)
    assert (radii > 0.005).sum() >= 2
    assert (smallest_margin(flight, states, labels, radii, "l2", generator, 8) > 0)[radii > 0].all()


@pytest.mark.parametrize("kind", ["wells", "rates"])
def test_all_of_a_basin_ends_within_the_precision_of_its_trap(kind, generator):
    settings = {"wells": {"gamma": 2.0}, "rates": {}}[kind]
    flight = flight_of_small(small_model(kind, nodes=6, steps=10, **settings))
    traps = find_traps(flight, most_steps=20)
    assert (traps.radius > 0).all()
    shift = 0.15 * torch.randn(2, *flight.attractors.shape, generator=generator).double()
    states, labels = (flight.attractors + shift).flatten(0, 1), torch.arange(3).repeat(2)
    radii = basin_radii(flight, states, labels, traps)
    assert (radii > 0.02).sum() >= 3
    u = on_sphere((1000, *states.shape), "l2", generator)
    ends = flown(flight, states + radii[:, None] * u, 150)[-20:]
    off = (ends - traps.attractors[labels]).norm(dim=-1)
    assert (off <= traps.precision[labels])[:, :, radii > 0].all()
    wrong = (labels + 1) % 3
    assert not basin_radii(flight, states, wrong, traps)[radii > 0].any()


@pytest.mark.parametrize("kind", ["wells", "rates"])
def test_traps_only_help(kind, generator):
    flight = flight_of_small(small_model(kind, nodes=6, steps=10))
    states, labels = images_of(flight, 4, generator)
    traps = find_traps(flight, most_steps=15)
    without, with_traps = (class_radii(flight, states, labels, given) for given in (None, traps))
    assert (with_traps >= 0.96 * without).all()
    assert (smallest_margin(flight, states, labels, with_traps, "l2", generator) > 0)[with_traps > 0].all()


def test_a_trap_whose_states_pass_another_class_proves_no_class():
    flight = flight_of_small(small_model("wells", nodes=6, steps=10, gamma=2.0))
    traps = find_traps(flight, most_steps=15)
    states, labels = flight.attractors, torch.arange(3)
    reversed_ = dataclasses.replace(flight, readout=-flight.readout)
    undecided = dataclasses.replace(traps, decided=torch.zeros(3).bool())
    assert not class_radii(reversed_, states, labels, undecided).any()
    assert basin_radii(flight, states, labels, undecided).all()


def test_an_image_of_another_class_or_of_no_numbers_has_no_radius(generator):
    flight = flight_of_small(small_model("wells", nodes=6, steps=8))
    states, labels = images_of(flight, 4, generator)
    labels[1] = (labels[1] + 1) % 3
    states[2, 0] = torch.nan
    radii = class_radii(flight, states, labels)
    assert (radii > 0).tolist() == [True, False, False, True]


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("most", [128, 1])
def test_radii_of_a_linear_map_are_those_in_closed_form(norm, most, generator, monkeypatch):
    for module in (tube_radii, euler_flights):
        monkeypatch.setattr(module, "MOST_NODES_OF_BLOCKS", most)
    model = small_model("wells", nodes=6, steps=5)
    flight = dataclasses.replace(flight_of_small(model), reaction=Cubic(0.3), bound=None)
    states, labels = images_of(flight, 8, generator)
    step = torch.eye(6).double() + flight.dt * (0.3 * torch.eye(6).double() + flight.coupling)
    whole = torch.linalg.matrix_power(step, 5)
    rows = (flight.readout[labels][:, None, :] - flight.readout) @ whole
    found = margins(flight, states @ whole.T, labels)
    exact = (found / (rows.norm(dim=2) if norm == "l2" else rows.abs().sum(dim=2))).amin(dim=1)
    if most == 1 and norm == "linf":
        with pytest.raises(SettingError, match="nodes=6: must be at most"):
            class_radii(flight, states, labels, norm=norm)
        return
    radii = class_radii(flight, states, labels, norm=norm)
    assert (radii <= exact).all()
    assert (radii >= 0.969 * exact)[exact > 0.01].all()


def test_nothing_is_certified_beyond_where_the_clip_acts(generator):
    flight = flight_of_small(small_model("wells", nodes=6, steps=8))
    states, labels = images_of(flight, 6, generator)
    free = class_radii(flight, states, labels)
    largest = flown(flight, states).abs().amax(dim=(0, 2))
    narrow = dataclasses.replace(flight, bound=float(largest.median()))
    radii = class_radii(narrow, states, labels)
    assert (radii <= free).all()
    # a ball of that radius around an image has such states, of which the clip changes some
    assert (flown(narrow, states)[1:].abs().amax(dim=(0, 2)) < narrow.bound)[radii > 0].all()
    reached = (
        flown(dataclasses.replace(narrow, bound=None), states)[1:].abs().amax(dim=(0, 2)) >= narrow.bound
    )
    assert reached.any()
    assert not radii[reached].any()


def test_no_time_gives_no_radii_and_no_images_give_none(generator):
    flight = flight_of_small(small_model("wells", nodes=6, steps=8))
    states, labels = images_of(flight, 4, generator)
    with pytest.warns(UserWarning, match="time ran out for 4 of 4 images"):
        assert class_radii(flight, states, labels, seconds_per_image=0).tolist() == [0] * 4
    empty = class_radii(flight, states[:0], labels[:0])
    assert (empty.shape, empty.dtype) == ((0,), torch.float64)


def of_many_nodes(integrator):
    nodes = flights.MOST_NODES_OF_BLOCKS + 1
    attractors = torch.stack([torch.ones(nodes), -torch.ones(nodes)]).double()
    coupling, offsets = torch.zeros(nodes, nodes).double(), torch.zeros(2).double()
    reaction, emission = Cubic(1.0, -1.0), Cubic(1.0)
    return flights.Flight(
        coupling, reaction, emission, 0.1, 3, integrator, None, attractors, attractors, offsets
    )


def test_more_nodes_than_the_memory_holds_are_refused_before_anything_is_computed(monkeypatch):
    many = of_many_nodes("euler")
    states, labels = 0.5 * many.attractors, torch.arange(2)
    assert bool((class_radii(many, states, labels) > 0).all())
    monkeypatch.setattr("lightning_attractors.memory.physical_memory", lambda: 2**21)
    with pytest.raises(SettingError, match="nodes=129: must be smaller: it needs 0 GiB, and there are 0"):
        class_radii(many, states, labels)


@pytest.mark.parametrize(("integrator", "norm"), [("heun", "l2"), ("rk4", "l2"), ("euler", "linf")])
def test_many_nodes_are_for_euler_and_l2_only(integrator, norm, generator):
    many = of_many_nodes(integrator)
    attractors = many.attractors
    states, labels = 0.5 * attractors, torch.arange(2)
    with pytest.raises(
        SettingError, match=f"nodes=129: must be at most 128 for tubes of {integrator}"
    ) as told:
        class_radii(many, states, labels, norm=norm)
    assert "\n" not in str(told.value)
    nothing = torch.zeros(2).double()
    traps = Traps(attractors, nothing, nothing.long(), nothing, nothing, nothing.bool())
    with pytest.raises(SettingError, match="nodes=129: must be at most 128, for basins"):
        basin_radii(many, states, labels, traps)
