import pytest

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness.attacks import make_attacks


@pytest.mark.parametrize("strengths", [["a"], 0.1, [[0.1]], [None]])
def test_strengths_of_an_entry_must_be_numbers(strengths):
    with pytest.raises(SettingError, match=r"strengths=.*list of numbers, for FGSM") as caught:
        make_attacks([{"class_path": "torchattacks.FGSM", "strengths": strengths}], None)
    assert "\n" not in str(caught.value)


def test_strengths_of_an_entry_come_before_those_of_all():
    entries = [{"class_path": "torchattacks.FGSM", "strengths": [0.3, 1]}, "gaussian_noise"]
    first, second = make_attacks(entries, [0.1])
    assert first.strengths == (0.3, 1.0)
    assert second.strengths == (0.1,)
