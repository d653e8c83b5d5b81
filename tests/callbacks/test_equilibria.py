"""The picture of eigenvalues: its words, its names, and what is marked as unstable."""

import dataclasses

import pytest
import torch
from figure_boxes import LONG_NAMES, require_legible
from matplotlib.collections import PathCollection

from lightning_attractors.callbacks.equilibria import draw_spectra, spectral_scalars, summarize, verdict
from lightning_attractors.certificates import EquilibriumCertificate, Spectrum, spectrum
from lightning_attractors.certificates.equilibria import Point
from lightning_attractors.figures import SEQUENCE


def certificates(count, with_step=True):
    """Of the Jacobians −I + N(0, 0.1²) of a flow, and those of its Euler steps."""
    generator = torch.Generator().manual_seed(0)
    identity = torch.eye(4, dtype=torch.float64)
    found = []
    for _ in range(count):
        noise = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        jacobian = 0.1 * noise - identity
        step = Point(0.0, 0.0, True, spectrum(identity + 0.1 * jacobian)) if with_step else None
        found.append(EquilibriumCertificate(Point(0.0, 0.0, True, spectrum(jacobian)), step))
    return found


def words_of(figure):
    legend = figure.legends[0]
    texts = [text.get_text() for text in legend.texts]
    return " ".join(legend.get_title().get_text().split()), texts, " ".join(figure.get_supxlabel().split())


def test_it_says_what_the_dots_are_and_where_they_are_stable():
    figure = draw_spectra(certificates(3), LONG_NAMES[:3])
    require_legible(figure)
    title, names, caption = words_of(figure)
    assert title == "eigenvalues at the attractor of"
    assert len(names) == 4
    assert names[-1] == "unstable"
    assert "eigenvalue λ of the Jacobian (the matrix of derivatives) at an attractor" in caption
    assert caption.endswith("which is certified to be below $10^{-13}$ and $10^{-13}$.")
    titles = [axis.get_title() for axis in figure.axes]
    assert ["left of the line" in titles[0], "inside the circle" in titles[1]] == [True, True]
    alone = draw_spectra(certificates(3, with_step=False))
    require_legible(alone)
    assert "circle" not in words_of(alone)[2]
    assert words_of(alone)[1] == ["0", "1", "2", "unstable"]


@pytest.mark.parametrize("count", [len(SEQUENCE), len(LONG_NAMES)])
def test_classes_have_names_as_far_as_there_are_colours(count):
    figure = draw_spectra(certificates(count), LONG_NAMES[:count])
    require_legible(figure)
    names = words_of(figure)[1]
    assert len(names) == (count + 1 if count <= len(SEQUENCE) else 2)
    dots = [drawn for drawn in figure.axes[0].collections if isinstance(drawn, PathCollection)]
    assert len(dots) == count


def test_attractors_with_the_same_jacobian_have_one_name_between_them():
    assert words_of(draw_spectra(certificates(1) * 5, LONG_NAMES[:5]))[1] == [
        "all 5 classes, alike",
        "unstable",
    ]


def test_an_error_that_is_not_bounded_is_said_so():
    (known,) = certificates(1)
    lost = dataclasses.replace(known.flow.spectrum, error_bound=torch.inf)
    unknown = dataclasses.replace(known, flow=dataclasses.replace(known.flow, spectrum=lost))
    assert words_of(draw_spectra([unknown]))[2].endswith("No error could be certified for some of them.")


def test_bounds_are_marked_and_drawn_as_circles():
    exact = certificates(2)
    assert "upper bounds" not in summarize(exact)["evidence"]
    flow = Spectrum(torch.tensor([-2.0], dtype=torch.complex128), 0.125, 50.0, reach=1.5)
    step = Spectrum(torch.tensor([0.25], dtype=torch.complex128), 0.0, 50.0, reach=0.5)
    bounds = [EquilibriumCertificate(Point(0.0, 0.0, True, flow), Point(0.0, 0.0, True, step))] * 2
    report = summarize(bounds)
    assert "upper bounds" in report["evidence"]
    assert report.keys() == summarize(exact).keys()
    assert report["stable"]
    assert report["worst_abscissa"] == -0.5
    assert report["attractors"][0]["return_time"] == 2.0
    assert report["attractors"][0]["spectral_radius"] == 0.75
    assert spectral_scalars(bounds).keys() == spectral_scalars(exact).keys()
    figure = draw_spectra(bounds, ["a", "b"])
    require_legible(figure)
    assert "a circle is proved to hold all of them" in words_of(figure)[2]
    assert "around the dots" not in words_of(figure)[2]
    assert verdict(bounds) == "2/2, worst eigenvalue at most -0.5 ± 0.1, step map radius at most 0.75"
    assert "at most" not in verdict(exact)
    assert "a circle is proved" not in words_of(draw_spectra(exact, ["a", "b"]))[2]
    (circle,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    assert circle.get_xdata().max() == pytest.approx(-0.375)
