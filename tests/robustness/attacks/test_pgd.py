import math

import pytest
import torch
import torchattacks

from lightning_attractors.robustness import fgsm_radii, pgd_radii

COUNT = 60


@pytest.mark.parametrize(("largest", "steps"), [(0.3, 12), (0.02, 12), (0.05, 7)])
def test_pgd_moves_as_torchattacks_does(largest, steps, network, data):
    images, labels = data
    found = pgd_radii(network, images, labels, largest=largest, step_size=0.007, steps=steps)
    assert (found.steps[::10] == 0).all()
    assert torch.equal(found.adversarial[::10], images[::10])
    for taken in found.steps.unique().tolist():
        count = steps if taken < 0 else taken
        rows = found.steps == taken
        attack = torchattacks.PGD(network, eps=largest, alpha=0.007, steps=count, random_start=False)
        moved = attack(images[rows], labels[rows]) if count else images[rows]
        torch.testing.assert_close(found.adversarial[rows], moved, atol=1e-12, rtol=0)
        wrong = network(moved).argmax(dim=1) != labels[rows]
        assert (wrong == (taken >= 0)).all()
        # Not a step earlier
        if taken > 1:
            earlier = torchattacks.PGD(network, eps=largest, alpha=0.007, steps=taken - 1, random_start=False)
            assert (network(earlier(images[rows], labels[rows])).argmax(dim=1) == labels[rows]).all()
        distance = (moved - images[rows]).abs().flatten(1).amax(dim=1)
        torch.testing.assert_close(found.radii[rows], distance if taken >= 0 else distance + math.inf)


def test_pgd_radius_is_the_number_of_steps_times_their_size(network, data):
    found = pgd_radii(network, *data, step_size=0.004)
    reached = found.steps > 0
    assert reached.sum() > 30
    torch.testing.assert_close(found.radii[reached], 0.004 * found.steps[reached].double())


def test_pgd_radii_of_as_many_steps_are_equal_in_float32():
    def brighter(images):
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)

    images = torch.linspace(0.3, 0.49, COUNT).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    found = pgd_radii(brighter, images, torch.zeros(COUNT, dtype=torch.int64), largest=0.15)
    reached = found.steps > 0
    assert 30 < reached.sum() < COUNT
    assert torch.equal(found.radii[reached], (found.steps[reached].double() * (1 / 255)).clamp(max=0.15))


def test_pgd_is_not_weaker_where_fgsm_takes_the_same_step(network, data):
    single = pgd_radii(network, *data, step_size=0.02, steps=1)
    line = fgsm_radii(network, *data, largest=0.02, resolution=0.02)
    assert torch.equal(single.radii.isinf(), line.radii.isinf())
