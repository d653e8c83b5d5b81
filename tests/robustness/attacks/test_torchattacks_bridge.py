import math

import pytest
import torch
from robustness_runs import Bright, pictures

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness.attacks import LibraryAttack

IMAGES, LABELS = torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 2])


def logits(images):
    return images.flatten(1)


class Brighten:
    """An attack as a stranger may write it."""

    def __init__(self, model, eps, give=lambda images: images):
        self.eps, self.give = eps, give

    def __call__(self, images, labels):
        return self.give((images + self.eps).clamp(0, 1))


def attack(**arguments):
    return LibraryAttack(f"{__name__}.Brighten", arguments)


def test_any_class_of_a_model_and_a_strength_is_an_attack():
    moved = attack()(logits, IMAGES, LABELS, 0.25, [0])
    torch.testing.assert_close(moved, (IMAGES + 0.25).clamp(0, 1))


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda images: images[:, :, :2], r"not \(3, 1, 2, 4\)"),
        (lambda images: (images, True), "not tuple"),
        (lambda images: images @ torch.ones(3), "cannot attack images"),
    ],
)
def test_what_does_not_give_images_is_refused(give, message):
    with pytest.raises(SettingError, match=message) as caught:
        attack(give=give)(logits, IMAGES, LABELS, 0.1, [0])
    assert "Brighten" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["no.such", "torchattacks.Nothing", "..PGD", "PGD", "torch.relu"])
def test_paths_of_no_class_are_refused(path):
    with pytest.raises(SettingError, match="attacks=") as caught:
        LibraryAttack(path, {})
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


class Seeded:
    """Takes the time where it is given no seed, as torchattacks.AutoAttack does."""

    def __init__(self, model, eps=0.1, seed=None):
        self.seed = seed

    def __call__(self, images, labels):
        return torch.full_like(images, math.nan if self.seed is None else self.seed % 1000)


def test_attacks_with_a_seed_of_their_own_are_given_one():
    images, labels = pictures()
    attack = LibraryAttack(f"{__name__}.Seeded", {})
    first, again, other = (attack(Bright(), images, labels, 0.1, key) for key in ([0, 1], [0, 1], [0, 2]))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    chosen = LibraryAttack(f"{__name__}.Seeded", {"seed": 7})
    assert chosen(Bright(), images, labels, 0.1, [0, 1]).eq(7).all()
