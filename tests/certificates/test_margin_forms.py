import dataclasses

import pytest
import torch
from flying import flight_of_small, flown, on_sphere, small_model, uncoupled

from lightning_attractors.certificates import euler_flights, flights
from lightning_attractors.certificates.euler_flights import prepare
from lightning_attractors.certificates.margin_forms import MarginForms

KINDS = ["wells", "rates"]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def prepared_small(kind, generator, steps=8):
    flight = flight_of_small(small_model(kind, nodes=9, steps=steps))
    starts = torch.rand(4, 9, dtype=torch.float64, generator=generator)
    return flight, starts, prepare(flight, starts, torch.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize("kind", KINDS)
def test_forms_are_half_of_the_hessians_of_margins(kind, generator):
    flight, starts, prepared = prepared_small(kind, generator)
    for b, label in enumerate(prepared.labels):
        for at, other in enumerate(prepared.forms.classes[b]):

            def margin(x, label=label, other=other):
                logits = flown(flight, x)[-1] @ flight.readout.T + flight.offsets
                return logits[label] - logits[other]

            half = torch.autograd.functional.hessian(margin, starts[b]) / 2
            torch.testing.assert_close(prepared.forms.eigenvalues[b, at], torch.linalg.eigvalsh(half))
            gradient = torch.autograd.functional.jacobian(margin, starts[b])
            assert prepared.forms.slopes[b, at].norm() == pytest.approx(gradient.norm().item())
            # the basis is that of the form
            by_form = (prepared.forms.eigenvalues[b, at] * prepared.forms.slopes[b, at].square()).sum()
            assert by_form.item() == pytest.approx((gradient @ half @ gradient).item(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("convex", [0.0, 1.0, -1.0])
def test_what_a_form_loses_is_nearly_its_least_value_and_never_less(convex, generator):
    forms = torch.randn(5, 2, 2, 2, dtype=torch.float64, generator=generator)
    forms = forms + forms.mT + 4 * convex * torch.eye(2, dtype=torch.float64)
    gradients = torch.randn(5, 2, 2, dtype=torch.float64, generator=generator)
    radii = torch.tensor([0.01, 0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
    lost = MarginForms.of(torch.zeros(5, 2, dtype=torch.long), forms, gradients).lost(radii)
    angles = torch.linspace(0, 2 * torch.pi, 2000, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    u = (torch.linspace(0, 1, 200, dtype=torch.float64)[:, None, None] * circle).flatten(0, 1)
    x = radii[:, None, None] * u
    values = torch.einsum("bni,bcij,bnj->bcn", x, forms, x) + torch.einsum("bni,bci->bcn", x, gradients)
    exact = -values.amin(dim=2)
    assert (lost >= exact * (1 - 1e-12)).all()
    assert (lost <= exact * 1.25 + 1e-3 * radii[:, None]).all()
    by_norms = radii[:, None] * gradients.norm(dim=2)
    by_norms = by_norms - radii[:, None].square() * torch.linalg.eigvalsh(forms)[:, :, 0].clamp(max=0)
    assert (lost <= by_norms * (1 + 1e-6)).all()


def test_nothing_is_known_of_forms_that_are_no_numbers():
    forms = torch.full((1, 1, 2, 2), torch.nan, dtype=torch.float64)
    known = MarginForms.of(torch.zeros(1, 1, dtype=torch.long), forms, torch.ones(1, 1, 2).double())
    assert not (known.lost(torch.ones(1).double()) < torch.inf).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("second", "few"), [(64, True), (0, True), (0, False)], ids=["second", "products", "norms"]
)
def test_what_is_left_over_and_carried_along_bounds_every_deviation(
    kind, second, few, generator, monkeypatch
):
    monkeypatch.setattr(flights, "MOST_NODES_OF_SECOND_ORDER", second)
    monkeypatch.setattr(euler_flights, "MOST_NODES_OF_BLOCKS", 128 if few else 0)
    flight, starts, prepared = prepared_small(kind, generator, steps=6)
    assert (prepared.carried[-1].products is not None) == few
    known = []
    whole = euler_flights.PreparedFlight._deviation
    keep = lambda *arguments: known.append(whole(*arguments)) or known[-1]  # noqa: E731
    monkeypatch.setattr(euler_flights.PreparedFlight, "_deviation", keep)
    radii = torch.full((4,), 0.1, dtype=torch.float64)
    prepared.holds(radii)
    u = radii[:, None] * on_sphere((3000, 4, 9), "l2", generator)
    passed = flown(flight, starts + u)
    for k, bound in enumerate(known):
        jacobians = torch.stack(
            [torch.autograd.functional.jacobian(lambda x, k=k: flown(flight, x, k)[-1], x) for x in starts]
        )
        first = (jacobians @ u[..., None])[..., 0]
        off = passed[k] - prepared.centers[k]
        assert (off.abs() <= bound.reach + 1e-12).all()
        assert (off.norm(dim=2) <= bound.length + 1e-12).all()
        assert ((off - first).abs() <= bound.beyond + 1e-12).all()
        assert ((off - first).norm(dim=2) <= bound.beyond_length + 1e-12).all()
        if k:
            assert (bound.beyond > 0).all()
            loosest = (bound.beyond / (off - first).abs().amax(dim=0).clamp(min=1e-6)).median()
            assert loosest < (30 if few else 300)


def test_with_products_of_jacobians_more_is_proved_than_with_norms(generator, monkeypatch):
    monkeypatch.setattr(flights, "MOST_NODES_OF_SECOND_ORDER", 0)
    _, _, prepared = prepared_small("wells", generator)
    monkeypatch.setattr(euler_flights, "MOST_NODES_OF_BLOCKS", 0)
    by_norms = prepare(prepared.flight, prepared.centers[0], prepared.labels)
    radii = torch.linspace(0.005, 1, 200, dtype=torch.float64)
    held = [torch.stack([known.holds(r.expand(4)) for r in radii]) for known in (prepared, by_norms)]
    assert (held[0] >= held[1]).all()
    assert held[0].sum() > held[1].sum()


def lost_beyond(prepared, radius):
    """What `holds` adds to a form for third order, shape (B, C), without rounding."""
    known, beyond = [], []
    deviation, lost = euler_flights.PreparedFlight._deviation, euler_flights.PreparedFlight._lost
    with pytest.MonkeyPatch.context() as patch:
        keep = lambda *given: known.append(deviation(*given)) or known[-1]  # noqa: E731
        add = lambda *given: beyond.append(lost(*given)) or beyond[-1]  # noqa: E731
        patch.setattr(euler_flights.PreparedFlight, "_deviation", keep)
        patch.setattr(euler_flights.PreparedFlight, "_lost", add)
        prepared.holds(torch.full((len(prepared.labels),), radius, dtype=torch.float64))
    return torch.stack([third for _, third in beyond]).sum(dim=0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_margins_are_off_their_forms_by_is_bounded(kind, generator):
    flight, starts, prepared = prepared_small(kind, generator)
    radius, classes = 0.05, prepared.forms.classes
    bound = lost_beyond(prepared, radius)
    u = radius * on_sphere((200, 4, 9), "l2", generator)

    def margins(x):
        logits = flown(flight, x)[-1] @ flight.readout.T + flight.offsets
        own = logits.gather(2, prepared.labels.expand(len(x), -1)[..., None])
        return (own - logits).gather(2, classes.expand(len(x), -1, -1))

    whole, middle = margins(starts + u), margins(starts[None])
    for c in range(classes.shape[1]):
        for b in range(4):
            label, other = prepared.labels[b], classes[b, c]

            def margin(x, label=label, other=other):
                logits = flown(flight, x)[-1] @ flight.readout.T + flight.offsets
                return logits[label] - logits[other]

            half = torch.autograd.functional.hessian(margin, starts[b]) / 2
            gradient = torch.autograd.functional.jacobian(margin, starts[b])
            steps = u[:, b]
            form = middle[0, b, c] + steps @ gradient + ((steps @ half) * steps).sum(dim=1)
            off = (whole[:, b, c] - form).abs()
            assert off.max() <= bound[b, c]
            assert off.max() > 0


def test_third_order_is_exact_for_one_node_and_one_step():
    # half of it would be caught here: the cube's third derivative is the same everywhere
    flight = dataclasses.replace(uncoupled(nodes=1), steps=1)
    starts, radius = torch.full((1, 1), 0.5, dtype=torch.float64), 0.2
    prepared = prepare(flight, starts, torch.tensor([0]))
    row = (flight.readout[0] - flight.readout[prepared.forms.classes[0, 0]])[0]
    third = flight.reaction.derivative(starts, 3)[0, 0] / 6
    exact = (flight.dt * row * third * radius**3).abs()
    assert lost_beyond(prepared, radius)[0, 0].item() == pytest.approx(exact.item(), rel=1e-6)
