"""Training for basins: the loss is what its equation says, and its settings are checked."""

import pytest
import torch

from lightning_attractors.errors import SettingError
from lightning_attractors.models import CVFR, SANODE, BasinTraining
from lightning_attractors.models.basin_training import Flown

NODES, CLASSES = 6, 3


def linear_flight(matrix: torch.Tensor, attractors: torch.Tensor, steps: int) -> Flown:
    """x ↦ M x, with the states themselves as logits."""

    def path_of(x: torch.Tensor, count: int):
        yield x
        for _ in range(count):
            x = x @ matrix.T
            yield x

    def end_of(x: torch.Tensor, count: int) -> torch.Tensor:
        return list(path_of(x, count))[-1]

    return Flown(end_of, path_of, lambda x: x[:, :CLASSES], attractors, matrix, steps)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    matrix = torch.randn(NODES, NODES, dtype=torch.float64) / 3
    states, labels = torch.randn(5, NODES, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    return matrix, torch.eye(CLASSES, NODES, dtype=torch.float64), states, labels


def loss(parts, training: BasinTraining) -> float:
    matrix, attractors, states, labels = parts
    flown = linear_flight(matrix, attractors, steps=7)
    return float(training.loss(flown, states, labels, torch.Generator().manual_seed(3)))


def test_growth_of_a_linear_map_is_that_of_its_powers_in_between_singular_values(parts):
    with_growth = loss(parts, BasinTraining(0.5, 4, growth=1.0, settle=0, coupling=0))
    without = loss(parts, BasinTraining(0.5, 4, growth=0.0, settle=0, coupling=0))
    powers = [torch.linalg.matrix_power(parts[0], k) for k in range(1, 5)]
    values = [torch.linalg.svdvals(power).square() for power in powers]
    least, most = (float(sum(of(value) for value in values)) for of in (min, max))
    assert least <= with_growth - without <= most


def test_settling_and_coupling_are_added_with_their_weights(parts):
    matrix, attractors, states, labels = parts
    plain = loss(parts, BasinTraining(0.5, 4, growth=0, settle=0, coupling=0))
    end = states @ torch.linalg.matrix_power(matrix, 7).T
    missed = float((end - attractors[labels]).square().sum(dim=1).mean())
    settled = loss(parts, BasinTraining(0.5, 4, growth=0, settle=0.3, coupling=0))
    assert settled - plain == pytest.approx(0.3 * missed)
    coupled = loss(parts, BasinTraining(0.5, 4, growth=0, settle=0, coupling=0.2))
    assert coupled - plain == pytest.approx(0.2 * float(matrix.square().sum()))


def test_the_margin_is_asked_for_at_images_moved_against_it(parts):
    still = loss(parts, BasinTraining(1e-9, 4, growth=0, settle=0, coupling=0))
    moved = loss(parts, BasinTraining(1.0, 4, growth=0, settle=0, coupling=0))
    assert moved > still + 1e-3


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"radius": 0.0}, "basins.radius=0.0: must be above 0"),
        ({"growth": -1.0}, "basins.growth=-1.0: must be at least 0"),
        ({"settle": float("inf")}, "basins.settle=inf: must be at least 0 and finite"),
        ({"coupling": -0.1}, "basins.coupling=-0.1: must be at least 0"),
        ({"sharpness": 0.0}, "basins.sharpness=0.0: must be above 0"),
        ({"decide": 0}, "basins.decide=0: must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(settings, start):
    with pytest.raises(SettingError) as refused:
        BasinTraining(**settings)
    assert str(refused.value).startswith(start)


@pytest.mark.parametrize("family", [SANODE, CVFR])
def test_a_decision_after_the_last_step_is_refused(family):
    with pytest.raises(SettingError, match=r"basins\.decide=9: must be at most steps, 8"):
        family(3, (1, 7, 7), steps=8, basins=BasinTraining(decide=9))
