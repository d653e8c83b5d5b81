import dataclasses

import pytest
import torch
from flying import flight_of_small, flown, on_sphere, small_model, uncoupled

from lightning_attractors.certificates.traps import _returns, distance, find_traps
from lightning_attractors.certificates.tubes import ball

COUNT = 10_000


@pytest.fixture(scope="module", params=["wells", "rates"])
def trapped(request):
    """A model that is stable at its attractors, its map, and their traps."""
    model = small_model(request.param, **({"gamma": 2.0} if request.param == "wells" else {}))
    flight = flight_of_small(model)
    return model, flight, find_traps(flight, most_steps=40)


def boundary(flight, traps):
    """Starts (S, K, N) on the boundary of every trap: random ones, and those that the map throws farthest."""
    generator = torch.Generator().manual_seed(0)
    random = on_sphere((COUNT, *flight.attractors.shape), "l2", generator)
    for k, x in enumerate(flight.attractors):
        steps = int(traps.steps[k])
        passed = lambda x, steps=steps: flown(flight, x, steps)[-1]  # noqa: E731
        vectors = torch.linalg.svd(torch.autograd.functional.jacobian(passed, x)).Vh
        random[: 2 * flight.nodes, k] = torch.cat([vectors, -vectors])
    return flight.attractors + traps.radius[:, None] * random


def away(flight, states):
    return (states - flight.attractors).norm(dim=-1)


def test_there_are_traps_of_the_right_class(trapped):
    _, flight, traps = trapped
    assert (traps.radius > 0.02).all()
    assert (traps.rate < 1).all()
    assert traps.decided.all()
    assert (traps.precision < 0.02 * traps.radius).all()
    assert (traps.radius <= torch.nn.functional.pdist(flight.attractors).min() / 2).all()


def test_starts_on_the_boundary_come_back_and_end_at_the_attractor(trapped):
    _, flight, traps = trapped
    passed = flown(flight, boundary(flight, traps), 200)
    found = away(flight, passed)
    for k, steps in enumerate(traps.steps.tolist()):
        assert (found[steps, :, k] <= traps.rate[k] * traps.radius[k]).all()
        classes = (passed[:, :, k] @ flight.readout.T + flight.offsets).argmax(dim=-1)
        assert (classes == k).all()
    assert (found[-50:] <= traps.precision).all()


def test_starts_on_the_boundary_do_the_same_in_float32(trapped):
    model, flight, traps = trapped
    drawn_in = flight.attractors + (1 - 1e-5) * (boundary(flight, traps) - flight.attractors)
    images = drawn_in.float().reshape(-1, *model.image_shape)
    with torch.no_grad():
        found = [away(flight, x.double().view_as(drawn_in)) for x in model.states(images, 200)]
    for k, steps in enumerate(traps.steps.tolist()):
        assert (found[steps][:, k] <= traps.rate[k] * traps.radius[k]).all()
    for last in found[-50:]:
        assert (last <= traps.precision).all()


def test_no_start_is_farther_than_the_distance_of_the_tube(trapped):
    _, flight, traps = trapped
    tube = ball(flight.attractors, traps.radius, second_order=flight.second_order)
    for states in flown(flight, boundary(flight, traps)[:1000], 10):
        assert (away(flight, states) <= distance(tube, flight.attractors) * (1 + 1e-9)).all()
        tube = flight.step(tube)


def test_a_tube_is_in_a_trap_if_all_of_it_is(trapped):
    _, flight, traps = trapped
    labels = torch.arange(3)
    sizes = torch.stack([0.5 * traps.radius, 1.01 * traps.radius, 0 * traps.radius])
    held = [traps.hold(ball(flight.attractors, size), labels).tolist() for size in sizes]
    assert held == [[True] * 3, [False] * 3, [True] * 3]
    shifted = flight.attractors + 0.6 * traps.radius[:, None] * torch.eye(8, dtype=torch.float64)[0]
    assert not traps.hold(ball(shifted, 0.5 * traps.radius), labels).any()
    assert traps.hold(ball(shifted, 0.3 * traps.radius), labels).all()
    assert not traps.hold(ball(flight.attractors, 0.5 * traps.radius), (labels + 1) % 3).any()


def test_an_unstable_attractor_has_no_trap():
    flight = flight_of_small(small_model("wells", gamma=2.0))
    pushed = flight.coupling + 10 * torch.eye(8, dtype=torch.float64)
    traps = find_traps(dataclasses.replace(flight, coupling=pushed), most_steps=10)
    assert traps.radius.tolist() == [0, 0, 0]
    assert not traps.decided.any()
    assert (traps.precision == torch.inf).all()
    assert not traps.hold(ball(flight.attractors, torch.zeros(3).double()), torch.arange(3)).any()


def test_one_unstable_attractor_leaves_the_others_theirs():
    wells = uncoupled(nodes=4, dt=0.2, gamma=1.0)
    # 0 is an equilibrium between the wells, which every deviation leaves
    attractors = torch.cat([wells.attractors, torch.zeros(1, 4).double()])
    readout, offsets = attractors, -attractors.square().sum(dim=1) / 2
    traps = find_traps(
        dataclasses.replace(wells, attractors=attractors, readout=readout, offsets=offsets), most_steps=30
    )
    assert (traps.radius[:2] > 0.1).all()
    assert traps.radius[2] == 0
    assert (traps.precision[:2] < 1e-4).all()
    assert traps.precision[2] == torch.inf


def test_a_ball_that_the_clip_touches_on_its_way_is_no_trap():
    # far from normal: what is across the diagonal grows along it, for some steps
    along, across = torch.tensor([1.0, 1.0]).double(), torch.tensor([1.0, -1.0]).double()
    flight = dataclasses.replace(
        uncoupled(nodes=2, dt=0.2, gamma=1.0), coupling=5 * torch.outer(along, across), bound=50.0
    )
    free = find_traps(flight, most_steps=40)
    assert (free.radius > 0.01).all()
    tube, sizes = ball(flight.attractors, free.radius), []
    for _ in range(int(free.steps.max())):
        tube = flight.step(tube)
        sizes.append(float((tube.center.abs() + tube.reach()).max()))
    assert sizes[-1] < max(sizes)
    narrow = dataclasses.replace(flight, bound=(sizes[-1] + max(sizes)) / 2)
    assert (find_traps(narrow, most_steps=40).radius < free.radius).all()
    # while another ball is still followed, here for ever, this one comes back into what the clip leaves alone
    radii = torch.stack([free.radius[0], torch.tensor(1e-12).double()])
    assert _returns(flight, radii, 40, second_order=True).rate[0] < 1
    assert _returns(narrow, radii, 40, second_order=True).rate[0] == torch.inf
