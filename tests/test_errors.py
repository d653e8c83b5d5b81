import pickle

import pytest

from lightning_attractors.errors import SettingError, require


class Tall:
    """Shown on several lines, and not to be pickled."""

    def __init__(self):
        self.lock = (number for number in range(3))

    def __repr__(self):
        return "Tall(\n    3,\n    4)"


def test_a_refusal_is_one_line_that_names_setting_value_and_remedy():
    assert str(SettingError("dt", -0.1, "must be above 0")) == "dt=-0.1: must be above 0"
    assert str(SettingError("name", "a  b", "is taken")) == "name='a b': is taken"
    assert str(SettingError("model", Tall(), "is too tall")) == "model=Tall( 3, 4): is too tall"


def test_a_refusal_goes_to_other_processes_whatever_the_value():
    error = pickle.loads(pickle.dumps(SettingError("model", Tall(), "is too tall")))
    assert type(error) is SettingError
    assert str(error) == "model=Tall( 3, 4): is too tall"


def test_what_is_required_is_refused_only_where_it_does_not_hold():
    require(True, "dt", 0.1, "must be above 0")
    with pytest.raises(ValueError, match=r"^dt=0: must be above 0$"):
        require(False, "dt", 0, "must be above 0")
