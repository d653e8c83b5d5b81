import math

import pytest

from lightning_attractors.dynamics.plasticity import learning_rate
from lightning_attractors.errors import SettingError


def test_learning_rates_are_those_of_the_thesis():
    def rates(schedule, epochs=(0, 5, 10), **settings_):
        return [learning_rate(schedule, t, 10, 2.0, **settings_) for t in epochs]

    assert rates("linear") == [2.0, 1.0, 0.0]
    assert rates("exponential", tau=3.0) == pytest.approx([2.0, 2 * math.exp(-1.5), 2 * math.exp(-3)])
    assert rates("cosine") == pytest.approx([2.0, 1.0, 0.0])
    assert rates("cosine", [2]) == pytest.approx([1 + math.cos(0.2 * math.pi)])
    assert rates("step", (0, 3, 4, 8), gamma=0.5, step=4) == [2.0, 2.0, 1.0, 0.5]


@pytest.mark.parametrize(
    "changed",
    [{"schedule": "cubic"}, {"epochs": 0}, {"tau": -1.0}, {"gamma": 0.0}, {"gamma": 2.0}, {"step": 0}],
)
def test_schedules_out_of_range_are_refused(changed):
    with pytest.raises(SettingError, match=next(iter(changed))):
        learning_rate(**{"schedule": "linear", "epoch": 0, "epochs": 1, **changed})
