import pytest
import torch

from lightning_attractors.robustness import fit_logistic
from lightning_attractors.robustness.drawings import draw_curve
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


def test_a_plot_without_images_that_count_shows_all_images_even_at_one_strength():
    nothing = torch.full((1,), torch.nan, dtype=torch.float64)
    found = Curve(torch.tensor([0.1], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64), nothing)
    (line,) = draw_curve("FGSM", found, None, 0.8, 0, "linf").axes[0].lines
    assert (line.get_label(), line.get_ydata().tolist()) == ("all images", [pytest.approx(0.4)])
    assert line.get_marker() == "o"
