import pytest
import torch

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness.library import LibraryAttack

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
