"""Small flights of real models, and the trajectories that try to leave their tubes."""

import torch

from lightning_attractors.certificates.flights import Flight, flight
from lightning_attractors.dynamics.planted import Cubic
from lightning_attractors.models import CVFR, SANODE

SHAPES = {6: (1, 2, 3), 8: (1, 2, 4), 9: (1, 3, 3), 12: (1, 3, 4), 49: (1, 7, 7)}


def small_model(kind, integrator="euler", nodes=8, classes=3, seed=0, **settings):
    """A model in evaluation, untrained, with a coupling that is not small."""
    torch.manual_seed(seed)
    family, own = {"wells": (SANODE, {}), "rates": (CVFR, {"patterns": "blocks", "c": 0.25})}[kind]
    shared = {"num_classes": classes, "image_shape": SHAPES[nodes], "coupling": "projected"}
    model = family(**shared, **own, integrator=integrator, **settings)
    with torch.no_grad():
        model.coupling.weight.add_(torch.randn_like(model.coupling.weight) * 0.5)
    if kind == "wells":
        model.keep_stable_()
    return model.eval().requires_grad_(False)


def flight_of_small(model):
    """What runs when the model is evaluated."""
    attractors = model.attractors.double()
    sizes = attractors.square().sum(dim=1)
    scale = model.logit_scale / sizes.mean()
    offsets = -scale * (sizes - sizes.mean()) / 2
    map_ = (model.dt, model.eval_steps, model.integrator, model.bound)
    return flight(model.field(), *map_, attractors, scale * attractors, offsets)


def uncoupled(nodes=3, dt=0.5, steps=1, gamma=1.5, a=0.5):
    """Double wells without coupling, so overdamped that all that a step's tube is made of points one way."""
    attractors = a * torch.stack([torch.ones(nodes), -torch.ones(nodes)]).double()
    reaction = Cubic(4 * gamma * a * a, -4 * gamma)
    rest = (dt, steps, "euler", 10 * a, attractors, attractors, torch.zeros(2).double())
    return Flight(torch.zeros(nodes, nodes).double(), reaction, Cubic(1.0), *rest)


def flown(flight, states, steps=None):
    """All states from these on, in float64, clipped as they are when the model runs."""
    passed = [states]
    for _ in range(flight.steps if steps is None else steps):
        states = flight.state_step(states)
        passed.append(states)
    return torch.stack(passed)


def margins(flight, states, labels):
    """logit_label − logit_j (..., K), ∞ at the label, for states (..., B, N)."""
    logits = states @ flight.readout.T + flight.offsets
    own = labels.expand(logits.shape[:-1])[..., None]
    return (logits.gather(-1, own) - logits).scatter(-1, own, torch.inf)


def on_sphere(shape, norm, generator):
    """Random directions (..., N) of length one: normal ones, or corners of the box."""
    u = torch.randn(shape, dtype=torch.float64, generator=generator)
    return u.sign() if norm == "linf" else u / u.norm(dim=-1, keepdim=True)


def towards(rows, norm):
    """The directions (..., N) of length one along which linear forms (..., N) are largest."""
    return rows.sign() if norm == "linf" else rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-300)


def worst_directions(tubes, norm):
    """Directions (D, B, N): those of each row and singular vector of the transition at every step."""
    found = []
    for tube in tubes:
        found.append(towards(tube.linear, norm).transpose(0, 1))
        found.append(towards(torch.linalg.svd(tube.linear).Vh, norm).transpose(0, 1))
    one = torch.cat(found)
    return torch.cat([one, -one])
