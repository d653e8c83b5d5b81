import pytest
import torch
from figure_boxes import LONG_NAMES, require_legible

from lightning_attractors.callbacks.drawings import (
    draw_eigenvalues,
    draw_mse,
    draw_patterns,
    draw_realisations,
    draw_strip,
    draw_trajectories,
    end_of_action,
)
from lightning_attractors.figures import ATTACK


def test_the_drawn_node_is_the_one_that_varies_most():
    states = torch.zeros(3, 4, 5)
    states[1, :, 2] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    left, right = draw_realisations(states, 0.5).axes
    assert left.get_title() == "node 2, 4 realisations"
    assert right.lines[0].get_ydata().tolist() == pytest.approx([0, states[1, :, 2].std().item(), 0])
    assert right.lines[0].get_xdata().tolist() == [0, 0.5, 1]


def test_lines_are_coloured_by_their_final_value():
    states = torch.tensor([[[0.0, 0.0]], [[-0.5, 0.5]]])
    (lines,) = draw_trajectories(states, ["A"], 0.1).axes[0].collections
    (low, high) = lines.get_colors()
    assert low[2] > low[0]  # blue where it ends low
    assert high[0] > high[2]  # red where it ends high


def shown(axis):
    return torch.as_tensor(axis.images[0].get_array().filled(-9.0)).float()


def strip(states, attractors, images=None, labels=(0,)):
    images = torch.rand(1, 1, 2, 3) if images is None else images
    figure = draw_strip(images, states, attractors, labels, ["A", "B"], 0.1)
    return figure, [axis for axis in figure.axes if axis.images]


def test_a_strip_goes_from_the_image_over_its_states_to_the_attractor_that_they_reach():
    image, attractors = torch.rand(1, 1, 2, 3), torch.rand(2, 6)
    way = torch.tensor([1, 0.8, 0.6, 0.3, 0.05, 0])[:, None, None]
    states = attractors[1] + way * (image.flatten() - attractors[1])
    figure, axes = strip(states, attractors, image)
    for axis, expected in (
        (axes[0], image),
        (axes[1], image),
        (axes[-2], states[-1]),
        (axes[-1], attractors[1]),
    ):
        torch.testing.assert_close(shown(axis).flatten(), expected.float().flatten())
    titles = [axis.get_title() for axis in axes]
    assert titles == ["image", "$t = 0$", "$t = 0.2$", "$t = 0.3$", "$t = 0.4$", "$t = 0.5$", "attractor"]
    ends = axes[0].yaxis.label, axes[-1].yaxis.label
    assert [label.get_text() for label in ends] == ["A", "B"]
    assert ends[1].get_color() == ATTACK  # not where it should have come to
    words = figure.get_supxlabel()
    assert "code that we chose" in " ".join(words.split())
    assert words.startswith("The pixels of an image are the start")


def test_nodes_that_are_no_pixels_are_shown_row_by_row_and_called_so():
    attractors = torch.arange(14.0).view(2, 7)
    figure, axes = strip(attractors[:1].repeat(3, 1, 1), attractors, torch.rand(1, 3, 2, 2))
    assert shown(axes[-1]).flatten().tolist() == [*attractors[0].tolist(), -9, -9]  # what is masked is blank
    assert figure.get_supxlabel().startswith("What a network makes of an image is")


def test_the_time_axis_ends_soon_after_the_action():
    decaying = torch.exp(-torch.arange(401.0) * 0.1)[:, None, None].repeat(1, 1, 4)
    assert end_of_action(decaying) == 60  # a quarter after step 47, where 0.99 of the way are gone
    assert draw_trajectories(decaying, ["A"], 0.1).axes[0].get_xlim() == pytest.approx((0, 6.0))
    noise = torch.randn(101, 1, 4, generator=torch.Generator().manual_seed(0))
    assert end_of_action(noise) == 100
    assert end_of_action(torch.full((5, 2, 3), torch.nan)) == 4
    assert end_of_action(torch.ones(5, 2, 3)) == 1
    assert draw_mse(decaying[:, 0, 0] + 1e-3, 0.1).axes[0].get_xlim()[1] < 15


@pytest.mark.parametrize("count", [3, 12, 51])
def test_long_names_of_attractors_do_not_touch(count):
    names = (5 * LONG_NAMES)[:count]
    require_legible(draw_patterns(torch.eye(count, 100), names, (3, 64, 64)))


def test_long_names_of_rows_and_panels_do_not_touch():
    attractors = torch.eye(12, 100)
    states = torch.linspace(0, 1, 9)[:, None, None] * attractors
    images, labels = torch.rand(12, 3, 64, 64), list(range(12))
    for count in (1, 6):
        strip = draw_strip(images[:count], states[:, :count], attractors, labels[:count], LONG_NAMES, 0.1)
        require_legible(strip)
        require_legible(draw_trajectories(states[:, :count], LONG_NAMES, 0.1))


def caption_of(figure):
    require_legible(figure)
    return " ".join(figure.get_supxlabel().split())


def test_a_caption_says_what_lines_and_times_are():
    states = torch.rand(9, 4, 6, generator=torch.Generator().manual_seed(0))
    clock = "Time t is that of dx/dt = F(x), and not of a clock; a step of the integration is 0.25."
    trajectories = caption_of(draw_trajectories(states, list("ABCD"), 0.25))
    assert "A line is one of 6 nodes over time" in trajectories
    realisations = caption_of(draw_realisations(states, 0.25))
    assert "dashed, in the mean over all nodes" in realisations
    mse = caption_of(draw_mse(states[:, 0, 0], 0.25))
    assert "the squared distance, in the mean over all test images" in mse
    assert all(caption.endswith(clock) for caption in (trajectories, realisations, mse))


def test_distances_that_change_little_have_round_numbers():
    assert draw_mse(torch.tensor([14.0, 13.0, 12.5]), 0.1).axes[0].get_yscale() == "linear"
    assert draw_mse(torch.tensor([14.0, 1.0, 0.1]), 0.1).axes[0].get_yscale() == "log"


def test_eigenvalues_of_a_coupling_are_said_to_be_stable_where_there_is_a_bound():
    real_parts = torch.linspace(-1, 1, 7)
    free = draw_eigenvalues(real_parts, None)
    assert "matrix by which 7 nodes act on each other" in caption_of(free)
    assert not free.legends
    for bound in (0.5, 3.0):
        bounded = draw_eigenvalues(real_parts, bound)
        assert "stable at the attractors if all are left of the dashed line" in caption_of(bounded)
        assert [text.get_text() for text in bounded.legends[0].texts] == [
            f"stable below {bound:g}",
            "unstable",
        ]
        assert bounded.axes[0].get_xlim()[1] > bound
