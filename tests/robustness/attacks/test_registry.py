import pytest

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness.attacks import FGSM, PGD, make_attacks


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


@pytest.mark.parametrize(
    "entry", [PGD("l2"), {"class_path": "lightning_attractors.robustness.PGD", "init_args": {"norm": "l2"}}]
)
def test_strengths_that_nobody_gave_suit_the_norm(entry):
    (found,) = make_attacks([entry], None)
    assert {36 / 255, 0.5} < set(found.strengths)
    assert (max(found.strengths), found.norm) == (2.0, "l2")
    for other in (FGSM(), FGSM, "lightning_attractors.robustness.FGSM"):
        (found,) = make_attacks([other], None)
        assert {8 / 255, 0.1, 0.3} < set(found.strengths)
        assert (max(found.strengths), found.norm) == (0.3, "linf")
    assert make_attacks([entry], [0.1])[0].strengths == (0.1,)


@pytest.mark.parametrize("name", ["fgsm_radius", "pgd_radius"])
def test_a_search_in_l2_goes_farther_than_one_in_linf(name):
    (found,) = make_attacks([{"class_path": name, "init_args": {"norm": "l2"}}], None)
    reach = found.reach if isinstance(found.reach, float) else found.reach[-1]
    assert reach == pytest.approx(2.0)
    (found,) = make_attacks([{"class_path": name, "init_args": {"norm": "l2", "largest": 0.5}}], None)
    assert found.arguments["largest"] == 0.5
    (found,) = make_attacks([name], None)
    assert found.arguments["largest"] in (0.3, 1.0)


def test_attacks_in_two_norms_have_two_names():
    searches = ["pgd_radius", {"class_path": "pgd_radius", "init_args": {"norm": "l2"}}]
    names = [trial.name for trial in make_attacks([PGD("l2"), PGD(), *searches], None)]
    assert names == ["PGD_l2", "PGD", "pgd_radius", "pgd_radius_l2"]
    assert [trial.name for trial in make_attacks([PGD("l2")], None)] == ["PGD"]
    with pytest.raises(SettingError, match="names of their own"):
        make_attacks([PGD("l2"), PGD("l2", steps=3)], None)
