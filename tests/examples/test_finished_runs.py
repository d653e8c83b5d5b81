"""What the studies conclude about certificates: a radius that is too large is found and named."""

import pytest
import torch
from robustness_runs import example
from torch import nn

studies = example("studies/finished_runs")

# The logits are the two pixels, which meet half their difference away in L∞; the last image is wrong.
IMAGES = torch.tensor([[0.2, 0.5], [0.9, 0.3], [0.6, 0.4]]).view(3, 1, 1, 2)
LABELS, RADII = torch.tensor([1, 0, 1]), torch.tensor([0.15, 0.3, 0.0], dtype=torch.float64)


def attacked(radii):
    attack = studies.MarginPGD("linf", steps=20)
    model = nn.Flatten()

    def pgd(images, labels, reach):
        return attack(model, images, labels, ((1 - 1e-6) * reach).float())  # float32 may round up

    jobs = [("PGD", pgd, part) for part in studies.batches_by_radius(radii)]
    return studies.attack_at_radii(model, IMAGES, LABELS, radii, "linf", jobs)


def test_radii_that_hold_are_not_broken(capsys):
    studies.conclude(attacked(0.99 * RADII))
    printed = capsys.readouterr().out
    assert "PGD 0.003" in printed  # a hundredth of the smaller margin, 0.3
    assert "No attacked image" in printed


@pytest.mark.parametrize("image", [0, 1])
def test_a_radius_that_is_too_large_is_broken_and_named_by_the_image(image):
    radii = 0.9 * RADII
    radii[image] *= 1.5
    (line,) = attacked(radii)
    assert line.startswith(f"PGD: image {image} falls at distance")
    with pytest.raises(SystemExit, match="A CERTIFICATE IS BROKEN") as caught:
        studies.conclude([line])
    assert caught.value.code


def test_an_image_without_a_radius_cannot_break_one(capsys):
    assert attacked(torch.zeros(3, dtype=torch.float64)) == []
    assert "there are none" in capsys.readouterr().out
