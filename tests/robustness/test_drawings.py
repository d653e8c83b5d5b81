import pytest
import torch
from figure_boxes import LONG_NAMES, require_legible
from robustness_runs import Bright, pictures

from lightning_attractors.robustness import Certificate, MeasureSettings, fit_logistic, measure
from lightning_attractors.robustness.drawings import draw, draw_curve, draw_gallery
from lightning_attractors.robustness.images import Example
from lightning_attractors.robustness.report import Curve


def test_strengths_of_both_signs_are_drawn_in_order_with_R_on_either_side():
    strengths = torch.tensor([0.1, 0.3, -0.1, -0.3], dtype=torch.float64)
    accuracy = torch.tensor([0.9, 0.3, 0.8, 0.2], dtype=torch.float64)
    fitted = fit_logistic(torch.linspace(0.05, 0.3, 40))
    for keep, marks in (([0, 1, 2, 3], [fitted.R, -fitted.R]), ([0, 1], [fitted.R]), ([2, 3], [-fitted.R])):
        found = Curve(strengths[keep], accuracy[keep], accuracy[keep], None)
        lines = draw_curve("brightness", found, fitted, 0.8, 40, "linf").axes[0].lines
        assert [line.get_xdata()[0] for line in lines if len(set(line.get_xdata())) == 1] == marks
        assert sorted(strengths[keep].tolist()) == lines[0].get_xdata().tolist()
        drawn = dict(zip(lines[0].get_xdata().tolist(), lines[0].get_ydata().tolist(), strict=True))
        assert drawn == dict(zip(strengths[keep].tolist(), accuracy[keep].tolist(), strict=True))


def seen(axis):
    """Lines of which there is something to see, by their labels."""
    lines = [line for line in axis.lines if torch.as_tensor(line.get_ydata()).isfinite().sum() > 0]
    return {line.get_label() for line in lines if len(line.get_xdata()) > 1 or line.get_marker() == "o"}


def figure_of(attacks, strengths=None, confidence=0.5, certificate=None, about=None):
    settings = MeasureSettings(confidence=confidence, masking=False)
    told = measure(Bright().eval(), [pictures()], attacks, strengths, settings, certificate or Certificate())
    return draw(next(iter(told.attacks.values())), about)[""].axes[0]


def test_a_plot_is_never_blank_and_says_why_there_is_no_R():
    unsure = figure_of(["pgd_radius"], confidence=1.0)
    assert "all images" in seen(unsure)
    assert "no R: no image is classified correctly" in " ".join(unsure.texts[0].get_text().split())
    assert "all images" in seen(figure_of(["replace_pixels"], [0.3]))


def test_titles_name_model_data_and_norm_and_axes_what_strength_is():
    about = {"model": "SANODE", "data": "MNIST", "split": "val"}
    axis = figure_of(["pgd_radius"], about=about)
    assert axis.get_title() == r"SANODE on MNIST (val images): pgd_radius in $L_\infty$"
    assert r"distance in $L_\infty$" in axis.get_xlabel()
    assert figure_of(["replace_pixels"], [0.1, 0.3]).get_title() == "replace_pixels"


def test_the_certified_curve_is_below_the_attacked_one():
    def exact(images, labels):
        return (images.double().mean(dim=(1, 2, 3)) - 0.5).abs() * (1 - 1e-6)

    for confidence in (0.5, 1.0):  # where images count, and where none does
        axis = figure_of(["pgd_radius"], confidence=confidence, certificate=Certificate(exact))
        (certified,) = (line for line in axis.lines if "certified" in line.get_label())
        attacked = axis.lines[0]
        assert "no attack gets below" in certified.get_label()
        assert (certified.get_ydata() <= attacked.get_ydata() + 1e-9).all()
        assert certified.get_ydata()[0] == pytest.approx(1)


def test_a_gallery_calls_classes_by_their_names():
    settings = MeasureSettings(confidence=0.5, masking=False)
    found = measure(Bright().eval(), [pictures()], ["pgd_radius"], settings=settings).attacks["pgd_radius"]
    before, _, after = draw(found, {"class_names": ["dark", "light"]})["_gallery"].axes[:3]
    names = {0: "dark", 1: "light"}
    label, confidence = found.examples[0].before
    assert before.get_title().endswith(f"{names[label]}\nat {confidence:.2f}")
    assert after.get_title().startswith(names[found.examples[0].after[0]])
    assert "class 0" in "".join(axis.get_title() for axis in draw(found)["_gallery"].axes)


def test_long_names_of_a_gallery_do_not_touch():
    image = torch.rand(3, 64, 64)
    examples = [Example(1000 + k, image, 1 - image, (2 * k, 0.9), (2 * k + 1, 0.5)) for k in range(3)]
    about = {"model": "KrotovHopfield", "data": "ImageFolderDataModule", "split": "test"}
    require_legible(draw_gallery(examples, {**about, "class_names": LONG_NAMES}))


def test_the_axis_ends_where_the_curve_does():
    axis = figure_of(["pgd_radius"])
    ends = [line.get_xdata()[-1] for line in axis.lines[:2]]
    assert axis.get_xlim()[1] <= 1.05 * max(ends)
