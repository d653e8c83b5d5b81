"""No training step waits for the device: it reads no value there, and copies nothing from or to the host."""

from types import SimpleNamespace

import pytest
import torch
from gpu_checks.families import FAMILIES
from gpu_checks.syncs import places_of_waits
from gpu_checks.waits import recorded_waits

from lightning_attractors.certificates import guards

# What looks like one on a CPU.
HOST_ONLY = {
    "is_needed": "asks on a CPU alone",
    "plasticity_by_position": "the order of positions is drawn, and read, on the CPU",
}
# How many sub-steps a block takes, and what its weight is divided by, follow from a norm that is proved: by
# Gram products that end as soon as they are tight enough, of the very weight that is there.
OF_PROVED_NORMS = {
    *("_same", "_step", "_scaled", "quick_convolution_norm", "gram_bounds", "_quick_bound"),
}


@pytest.fixture
def unseen_modes(monkeypatch):
    """Bounds are computed although operations are recorded, which certificates refuse."""
    unseen = {"_get_current_function_mode_stack": list, "_get_current_dispatch_mode_stack": list}
    monkeypatch.setattr(guards, "overrides", SimpleNamespace(**unseen))
    monkeypatch.setattr(guards, "_python_dispatch", SimpleNamespace(**unseen))


@pytest.mark.usefixtures("unseen_modes")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", FAMILIES)
def test_training_steps_do_not_wait(name, precision):
    places = places_of_waits(name, torch.device("cpu"), precision)
    # torch counts the steps of its optimisers on the CPU
    ours = {place.split()[1] for place in places if not place.startswith("optim:")}
    assert ours - HOST_ONLY.keys() == (OF_PROVED_NORMS if name == "NonexpansiveNet" else set()), places


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0]),
        lambda x: bool(x.isfinite().all()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: torch.tensor(1.0, device=x.device),
        lambda x: torch.linalg.solve(torch.diag(x), x),
    ],
)
def test_what_waits_is_recorded(wait):
    places = []
    with recorded_waits(places):
        wait(torch.ones(3))
    assert len(places) == 1


def test_what_does_not_wait_is_not_recorded():
    places, x = [], torch.ones(3, requires_grad=True)
    with recorded_waits(places):
        index = torch.arange(3, device=x.device)
        y = torch.where(x > 0, x, x.new_zeros(()))[index].clamp(x.detach().min(), x.detach().max())
        torch.linalg.solve_ex(torch.diag(y), y)[0].sum().backward()
    assert places == []


@pytest.mark.cuda
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "NonexpansiveNet"])
def test_training_steps_do_not_wait_for_cuda(name):
    assert places_of_waits(name, torch.device("cuda")) == []
