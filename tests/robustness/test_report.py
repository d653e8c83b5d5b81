import pytest
import torch
from robustness_runs import Bright, example, pictures

from lightning_attractors.robustness import (
    PGD,
    MeasureSettings,
    fit_logistic,
    measure,
    result_line,
    usual_among,
    usual_strengths,
)


@pytest.mark.parametrize("agrees", [True, False, None])
def test_the_line_says_where_the_steps_do_not_agree(agrees):
    summary = {"attack": "pgd_radius", "fitted": True, "R": 0.1, "uncertainty": 0.01, "accuracy": 1.0}
    summary |= {"images": {"all": 9, "counted": 8}, "accuracy_at": {"0.1": 0.5}, "median_radius_all": 0.1}
    summary |= {"counts": True}
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


def test_an_attack_is_named_with_its_norm():
    settings = MeasureSettings(confidence=0.5, masking=False)
    attacks = ["pgd_radius", PGD("l2", steps=2), "brightness"]
    report = measure(Bright().eval(), [pictures()], attacks, [0.1], settings)
    summaries = [found.summary({}, {}) for found in report.attacks.values()]
    assert [summary["norm"] for summary in summaries] == ["linf", "l2", None]
    lines = [line.split("  ")[1] for line in str(report).splitlines()]
    assert lines == ["pgd_radius in L∞", "PGD in L2", "brightness"]


def spread_out(count, reach=0.5, scale=40.0, **settings):
    """A report of FGSM on grey images, whose radii are spread evenly up to 0.25."""
    images = torch.linspace(0.25, 0.75, count).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    batches = [(images, (images[:, 0, 0, 0] > 0.5).long())]
    attack = {"class_path": "fgsm_radius", "init_args": {"largest": reach}}
    chosen = MeasureSettings(**{"confidence": 0.5, "masking": False, **settings})
    return measure(Bright(scale).eval(), batches, [attack], settings=chosen).attacks["fgsm_radius"]


@pytest.mark.parametrize(
    ("count", "settings", "advice"),
    [
        (1002, {}, ""),
        (100, {}, "it counts from 501 images on: measure a split with more images"),
        (100, {"max_images": 100}, "it counts from 501 images on: measure a split with more images"),
        (100, {"max_images": 60}, "it counts from 501 images on: raise max_images"),
        (100, {"confidence": 0.7}, "it counts from 501 images on: lower confidence"),
        (
            100,
            {"confidence": 0.7, "max_images": 60},
            "it counts from 501 images on: raise max_images or lower confidence",
        ),
        (
            100,
            {"reach": 0.05},
            "a larger reach of the attack (largest, or steps) would show where the 80% fall",
        ),
        (3, {}, "measure a split with more images: the curve would have more points"),
        (
            100,
            {"confidence": 0.99, "scale": 1.0},
            "confidence: 0.56 would count half of the 100 correct images",
        ),
        (100, {"scale": -1.0}, "train longer, or see whether the images are as the model wants them"),
    ],
)
def test_what_would_give_an_R_is_said(count, settings, advice):
    found = spread_out(count, **settings)
    assert found.advice.startswith(advice)
    assert bool(found.advice) == bool(advice)
    line = result_line(found.summary({}, {}), 1.0)
    assert found.advice in line
    assert ("correctly with a confidence" in line) == ("confidence: " in advice)
    assert ("no R: " in line) == (found.robustness is None)


@pytest.mark.parametrize(("attack", "found"), [("brightness", "at most 0.5;"), ("fgsm_radius", "0.")])
def test_the_median_of_a_sweep_is_said_to_be_an_upper_bound(attack, found):
    batches = [(torch.full((3, 1, 2, 2), 0.7), torch.ones(3, dtype=torch.int64))]
    entry = {"class_path": attack} | ({"strengths": [-0.1, -0.5]} if attack == "brightness" else {})
    settings = MeasureSettings(confidence=0.5, masking=False)
    report = measure(Bright().eval(), batches, [entry], settings=settings).attacks[attack]
    line = result_line(report.summary({}, {}), 1.0).replace("  no R", ";  no R")
    assert f"median radius {found}" in line


def test_why_there_is_no_R_is_said_in_words():
    none = spread_out(100, reach=1e-4)
    assert none.reason == "no image that counts changed its class under the attack"
    assert none.advice.startswith("a larger reach of the attack")
    assert none.reason in result_line(none.summary({}, {}), 1.0)
    assert spread_out(3).reason.startswith("images that count changed their class at only ")


def test_accuracies_are_at_the_usual_strengths_that_were_tried():
    assert spread_out(1000).accuracy_at == {"0.1": pytest.approx(0.6, abs=0.01), "0.3": 0}
    assert list(spread_out(100, reach=0.2).accuracy_at) == ["0.1"]
    assert spread_out(1000, reach=0.05).accuracy_at == {"0.05": pytest.approx(0.8, abs=0.01)}
    assert list(usual_strengths("linf", 3, 1.0)) == ["2/255", "4/255", "8/255"]
    assert list(usual_strengths("l2", 3, 1.0)) == ["36/255", "0.5"]
    images = torch.linspace(0.25, 0.75, 100).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    batches = [(images, (images[:, 0, 0, 0] > 0.5).long())]
    sweeps = [
        {"class_path": "brightness", "strengths": strengths} for strengths in ([0.1, 4 / 255], [0.2, 0.1])
    ]
    sweeps[1]["name"] = "other"
    found = measure(Bright().eval(), batches, sweeps, settings=MeasureSettings(masking=False)).attacks
    # of a corruption, whose strengths are no distances, those that it tried
    assert list(found["brightness"].accuracy_at) == ["0.01569", "0.1"]
    assert list(usual_among("linf", 3, [0.1, 4 / 255])) == ["4/255"]
    assert list(usual_among("linf", 1, [0.01, 0.05, 0.03])) == ["0.01", "0.03", "0.05"]
    assert list(found["other"].accuracy_at) == ["0.1", "0.2"]
    assert found["other"].accuracy_at["0.2"] == found["other"].curve.accuracy[0]
