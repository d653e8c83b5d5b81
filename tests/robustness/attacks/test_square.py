import math

import pytest
import torch
import torchattacks

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness import Square


def attacked(network, data, queries, strength, seed=0):
    torch.manual_seed(seed)
    return Square(queries)(network, *data, strength)


def broken(network, data, moved):
    return network(moved).argmax(dim=1) != data[1]


def test_images_stay_within_the_strength_of_each_and_within_0_and_1(network, data):
    images = data[0]
    strengths = torch.linspace(0.01, 0.3, len(images), dtype=torch.float64)
    moved = attacked(network, data, 30, strengths)
    assert moved.aminmax().min >= 0
    assert moved.aminmax().max <= 1
    farthest = (moved - images).abs().flatten(1).amax(dim=1)
    assert (farthest <= strengths + 1e-12).all()
    assert (farthest > strengths / 2).all()


def test_more_queries_break_more_and_none_is_given_back(network, data):
    few, more = (broken(network, data, attacked(network, data, n, 0.06)) for n in (1, 300))
    assert more.sum() > few.sum()
    assert more[few].all()


def test_it_breaks_as_many_as_torchattacks_does(network, data):
    ours = broken(network, data, attacked(network, data, 300, 0.06))
    theirs = broken(network, data, torchattacks.Square(network, eps=0.06, n_queries=300)(*data))
    assert len(ours) / 4 < theirs.sum() < len(ours)
    assert ours.sum() >= theirs.sum() - 3


def test_it_is_a_function_of_the_random_numbers(network, data):
    first, again, other = (attacked(network, data, 20, 0.1, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_it_works_on_tensors_of_inference_mode(network, data):
    expected = attacked(network, data, 20, 0.1)
    with torch.inference_mode():
        copies = tuple(part.clone() for part in data)
    assert torch.equal(attacked(network, copies, 20, 0.1), expected)


@pytest.mark.parametrize("asked", [1, 30, 1999])
def test_a_square_has_the_share_of_the_schedule_and_lies_anywhere(asked):
    torch.manual_seed(0)
    squares = Square(2000, share=0.5).squares(torch.zeros(500, 3, 20, 30), asked)
    halvings = {1: 0, 30: 2, 1999: 9}[asked]
    side = max(1, round(math.sqrt(0.5 / 2**halvings * 600)))
    assert (squares.flatten(1).sum(dim=1) == side**2).all()
    rows, columns = squares.any(dim=3).squeeze(1), squares.any(dim=2).squeeze(1)
    assert (rows.sum(dim=1) == side).all()
    assert (columns.sum(dim=1) == side).all()
    assert rows[:, 0].any()
    assert rows[:, -1].any()


def test_a_square_fits_into_a_strip():
    assert Square().squares(torch.zeros(2, 1, 1, 9), 1).sum() == 2


@pytest.mark.parametrize("settings", [{"queries": 0}, {"share": 0.0}, {"share": 1.1}])
def test_settings_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(SettingError, match=name):
        Square(**settings)
