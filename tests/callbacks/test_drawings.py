import pytest
import torch

from lightning_attractors.callbacks.drawings import draw_realisations, draw_trajectories, draw_triples


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


def test_triples_show_image_attractor_and_final_state():
    image, attractor, final = torch.rand(1, 1, 2, 3), torch.rand(1, 6), torch.rand(1, 6)
    axes = draw_triples(image, attractor, final).axes
    shown = [torch.as_tensor(axis.images[0].get_array().data).flatten() for axis in axes]
    for picture, expected in zip(shown, (image, attractor, final), strict=True):
        torch.testing.assert_close(picture.float(), expected.flatten())


def test_nodes_that_are_no_pixels_are_shown_row_by_row():
    image, attractor = torch.rand(1, 3, 2, 2), torch.arange(7.0)
    shown = draw_triples(image, attractor[None], attractor[None]).axes[2].images[0].get_array()
    assert shown.shape == (3, 3)
    assert shown.compressed().tolist() == attractor.tolist()  # what is masked stays blank
    assert shown.mask.flatten().tolist() == [False] * 7 + [True] * 2
