"""Attacks along a gradient in L2 and in L∞, on a linear classifier whose nearest boundary is known."""

import pytest
import torch

from lightning_attractors.errors import SettingError
from lightning_attractors.norms import distances
from lightning_attractors.robustness import FGSM, PGD, GradientAttack, fgsm_radii, pgd_radii

COUNT = 40
WEIGHT = torch.tensor([3.0, -1.0, 2.0, 0.5])


def linear(images):
    score = images.flatten(1) @ WEIGHT.to(images) - 2.25
    return torch.stack([-score, score], dim=1) / 2


def pictures():
    """Images in the middle, where no pixel meets 0 or 1 on the way to the boundary, with the right labels."""
    images = 0.5 + 0.2 * (torch.rand(COUNT, 1, 2, 2, generator=torch.Generator().manual_seed(0)) - 0.5)
    images = images.double()
    return images, linear(images).argmax(dim=1)


def to_the_boundary(images, norm):
    """The exact distance: |score| over the dual norm of the weight."""
    return (linear(images)[:, 1] * 2).abs() / WEIGHT.double().norm(p=1 if norm == "linf" else 2)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_radii_are_the_distance_in_either_norm(norm):
    images, labels = pictures()
    exact = to_the_boundary(images, norm)
    found = fgsm_radii(linear, images, labels, norm=norm)
    torch.testing.assert_close(found.radii, exact, atol=2e-6, rtol=0)
    torch.testing.assert_close(distances(found.adversarial, images, norm), found.radii)
    stepped = pgd_radii(linear, images, labels, step_size=0.002, steps=200, norm=norm)
    assert ((stepped.radii >= exact - 1e-9) & (stepped.radii <= exact + 0.002)).all()
    torch.testing.assert_close(distances(stepped.adversarial, images, norm), stepped.radii)
    assert (
        pgd_radii(linear, images, labels, largest=0.01, norm=norm).radii > exact.clamp(max=0.01) - 1e-9
    ).all()


@pytest.mark.parametrize("attack", [FGSM, PGD])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_keep_to_their_strength_and_find_the_boundary(attack, norm):
    images, labels = pictures()
    exact = to_the_boundary(images, norm)
    for share, falls in ((0.98, False), (1.02, True)):
        moved = attack(norm)(linear, images, labels, share * exact)
        assert ((linear(moved).argmax(dim=1) != labels) == falls).all()
        assert (distances(moved, images, norm) <= share * exact * (1 + 1e-9)).all()
    assert torch.equal(attack(norm)(linear, images, labels, 0.0), images)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projections_are_the_nearest_point(norm):
    images = torch.rand(COUNT, 1, 3, 3, dtype=torch.float64)
    moved = images + torch.randn_like(images)
    projected = GradientAttack(norm).project(moved.clone(), images, 0.1)
    assert projected.min() >= 0
    assert projected.max() <= 1
    assert (distances(projected, images, norm) <= 0.1 + 1e-12).all()
    inside = images + 0.01 * (images.round() * -2 + 1)
    torch.testing.assert_close(GradientAttack(norm).project(inside.clone(), images, 0.1), inside)


def test_tiny_gradients_have_a_direction_and_none_has_none():
    gradient = torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]).view(2, 1, 1, 2)
    direction = GradientAttack("l2").direction(gradient)
    torch.testing.assert_close(direction.flatten(1), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_starts_are_random_and_within():
    images = torch.full((COUNT, 1, 3, 3), 0.5)
    for norm in ("linf", "l2"):
        first, second = (PGD(norm).start(images, 0.2) for _ in range(2))
        assert not torch.equal(first, second)
        assert (distances(first, images, norm) <= 0.2 + 1e-6).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l1"}, "norm='l1'"),
        ({"steps": 0}, "steps=0"),
        ({"step_size": 0.0}, "step_size"),
        ({"restarts": 0}, "restarts=0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        PGD(**settings)


def test_an_unknown_norm_is_refused_by_the_searches():
    for search in (fgsm_radii, pgd_radii):
        with pytest.raises(SettingError, match="norm='l1': must be linf or l2"):
            search(linear, *pictures(), norm="l1")
