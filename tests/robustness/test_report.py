import pytest
from robustness_runs import Bright, example, pictures

from lightning_attractors.robustness import MeasureSettings, fit_logistic, measure
from lightning_attractors.robustness.report import result_line


@pytest.mark.parametrize("agrees", [True, False, None])
def test_the_line_says_where_the_steps_do_not_agree(agrees):
    summary = {"attack": "pgd_radius", "fitted": True, "R": 0.1, "uncertainty": 0.01, "accuracy": 1.0}
    summary |= {"images": {"all": 9, "counted": 8}}
    summary |= {"steps": {"R_times_step_size": 0.25, "agrees_within_5_percent": agrees}}
    assert ("step size × R in steps is 0.25" in result_line(summary, 1.0)) == (agrees is False)


def test_the_uncertainty_is_over_images_with_that_of_the_fit_beside_it():
    settings = MeasureSettings(confidence=0.5, masking=False)
    found = measure(Bright().eval(), [pictures()], ["fgsm_radius"], settings=settings).attacks["fgsm_radius"]
    summary, fit = found.summary({}, {}), fit_logistic(found.images.radii[found.counts], found.trial.reach)
    assert (summary["uncertainty"], summary["fit_uncertainty"]) == (fit.uncertainty, fit.fit_uncertainty)
    assert summary["uncertainty"] > summary["fit_uncertainty"]
    assert f"± {fit.uncertainty:.1g}" in result_line(summary, 1.0)


def test_runs_are_compared_by_an_interval():
    behind = example("studies/compare_runs").behind
    best = {"fitted": True, "R": 0.011, "uncertainty": 3e-4, "fit_uncertainty": 1e-5}
    other = {"fitted": True, "R": 0.007, "uncertainty": 4e-4, "fit_uncertainty": 1e-5}
    assert behind(other, best) == "0.0030 to 0.0050"
    # Files of before have the uncertainty of the fit alone
    before = {key: value for key, value in other.items() if key != "fit_uncertainty"}
    assert behind(best, best) == behind(before, best) == behind({"fitted": False}, best) == ""
