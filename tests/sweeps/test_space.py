import pytest

from lightning_attractors.errors import SettingError
from lightning_attractors.sweeps import Choice, Plan, Range, flags, read_space
from lightning_attractors.sweeps.space import dimension, grid

SPACE = """
model.gamma: {low: 1e-3, high: 10, log: true}
model.steps: {low: 2, high: 10, step: 4}
model.widths: {values: [[16, 32], [32, 64]]}
data.noise_train: {low: 0, high: 0.3, step: 0.1}
seed_everything: {values: [1, 2, null, true]}
"""


@pytest.fixture
def space(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    return read_space(str(tmp_path / "space.yaml"))


def test_integers_stay_integers_and_lists_are_written_out(space):
    assert space == {
        "model.gamma": Range(0.001, 10.0, None, True),
        "model.steps": Range(2, 10, 4),
        "model.widths": Choice(("[16, 32]", "[32, 64]")),
        "data.noise_train": Range(0.0, 0.3, 0.1),
        "seed_everything": Choice((1, 2, None, True)),
    }
    assert [type(bound) for bound in space["model.steps"].extremes()] == [int, int]
    assert [type(bound) for bound in space["data.noise_train"].extremes()] == [float, float]


def test_a_grid_has_every_point_once_and_both_ends(space):
    del space["model.gamma"]
    points = list(grid(space))
    assert (
        len(points)
        == len({str(point) for point in points})
        == 3 * 2 * 4 * 4
        == Plan("c", "", space, "grid").size()
    )
    assert {point["data.noise_train"] for point in points} == {0.0, 0.1, 0.2, 0.3}
    assert {point["model.steps"] for point in points} == {2, 6, 10}


def test_a_point_is_what_a_command_line_takes():
    point = {"a": -1, "b": 1e-05, "c": "[16, 32]", "d": None, "e": True, "f": "Adam"}
    assert flags(point) == ["--a=-1", "--b=1e-05", "--c=[16, 32]", "--d=null", "--e=true", "--f=Adam"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (3, "must be {low: …, high: …}"),
        ({"low": 1}, "must be {low: …, high: …}"),
        ({"low": 1, "hihg": 2}, "has hihg; did you mean high?"),
        ({"low": 2, "high": 1}, "is empty: low must be below high"),
        ({"low": 1, "high": 1}, "is empty: low must be below high"),
        ({"low": "one", "high": 2}, "low='one': must be a finite number"),
        ({"low": 0, "high": float("inf")}, "high=inf: must be a finite number"),
        ({"low": 0, "high": 1, "log": True}, "must have low above 0 where it is logarithmic"),
        ({"low": 1, "high": 2, "log": "yes"}, "log='yes': must be true or false"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "must have log or step, not both"),
        ({"low": 1, "high": 9, "step": 0}, "must have a step above 0, and at most from low to high"),
        ({"low": 1, "high": 9, "step": 0.5}, "must have a whole step between integers"),
        ({"low": 0.0, "high": 1.0, "step": 2}, "must have a step above 0, and at most from low to high"),
        ({"values": []}, "must have a list of values, one at least"),
        ({"values": [1, 1]}, "must have each of its values once"),
        ({"values": [1], "low": 0}, "must have values, or low and high, not both"),
    ],
)
def test_what_is_no_space_is_named(given, problem):
    with pytest.raises(SettingError) as caught:
        dimension("model.gamma", given)
    assert str(caught.value).startswith("model.gamma")
    assert problem in str(caught.value)


def test_a_grid_over_what_has_no_steps_is_refused(space):
    with pytest.raises(
        SettingError, match=r"model\.gamma=.*must have a step, or values, for the sampler grid"
    ):
        Plan("c", "", space, "grid").size()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "must be a file that can be read"),
        ("a: [", "must be a file of YAML"),
        ("- a", "must hold settings by their names"),
        ("", "must hold settings by their names"),
    ],
)
def test_a_file_without_a_space_is_named(text, problem, tmp_path):
    path = tmp_path / "space.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingError, match=problem) as caught:
        read_space(str(path))
    assert "\n" not in str(caught.value)
