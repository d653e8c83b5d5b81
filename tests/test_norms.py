import pytest
import torch

from lightning_attractors.norms import NORMS, distances


def test_distances_are_of_all_pixels_of_an_image_and_do_not_feel_the_sign():
    images = torch.rand(2, 3, 4, 5)
    changed = images.double()
    changed[0, 0, 1, 2] += 0.3
    changed[0, 2, 3, 4] -= 0.4
    for one, other in ((changed, images), (images, changed)):
        assert distances(one, other, "linf").tolist() == pytest.approx([0.4, 0])
        assert distances(one, other, "l2").tolist() == pytest.approx([0.5, 0])


@pytest.mark.parametrize("norm", NORMS)
def test_distances_are_those_of_the_float32_images_in_float64(norm):
    # 0.1 and its neighbour: their difference has no more than float32's digits, its square does
    images = torch.tensor([[0.1]])
    changed = images.nextafter(torch.tensor(1.0))
    assert distances(changed, images, norm).item() == changed.item() - images.item()
    assert distances(images.bfloat16(), images.bfloat16(), norm).dtype == torch.float64
