import pytest
import torch

from lightning_attractors.errors import SettingError
from lightning_attractors.robustness import add_uniform, corruption_curve, replace_pixels


def brightness(images):
    """A classifier of two classes by the mean of the image, on the side of class 1 above 1/2."""
    mean = images.mean(dim=(1, 2, 3))
    return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def batches(count=60):
    labels = torch.arange(count) % 2
    images = torch.full((count, 1, 2, 2), 0.4) + 0.2 * labels.view(-1, 1, 1, 1)
    return [(images[:35], labels[:35]), (images[35:], labels[35:])]


def test_accuracy_is_counted_over_all_batches_for_every_repeat():
    curve = corruption_curve(brightness, batches(), add_uniform, [0.0, 0.05, 5.0], repeats=3)
    assert curve.accuracies.shape == (3, 3)
    # Within 0.05 the mean cannot cross from 0.4 to 0.5; at 5 the corruption decides alone.
    assert curve.accuracies[:, :2].eq(1).all()
    assert curve.mean[:2].tolist() == [1, 1]
    assert curve.spread[:2].tolist() == [0, 0]
    assert 0.3 < curve.mean[2] < 0.7
    assert len(set(curve.accuracies[:, 2].tolist())) > 1


def test_a_constant_classifier_scores_the_share_of_its_class():
    curve = corruption_curve(
        lambda images: torch.tensor([[0.0, 1.0]] * len(images)), batches(), replace_pixels, [0.5]
    )
    assert curve.mean.tolist() == [0.5]


def test_the_seed_decides_and_nothing_else():
    def measured(seed):
        return corruption_curve(
            brightness, batches(), add_uniform, [1.0, 2.0], repeats=4, seed=seed
        ).accuracies

    assert torch.equal(measured(0), measured(0))
    assert not torch.equal(measured(0), measured(1))


def test_a_strength_gives_the_same_alone_and_among_others():
    alone = corruption_curve(brightness, batches(), add_uniform, [1.0], repeats=3).accuracies
    among = corruption_curve(brightness, batches(), add_uniform, [0.2, 1.0], repeats=3).accuracies
    assert torch.equal(alone[:, 0], among[:, 1])


def test_nothing_to_measure_is_refused():
    for settings, name in (({"strengths": []}, "strengths"), ({"strengths": [0.1], "repeats": 0}, "repeats")):
        with pytest.raises(SettingError, match=name):
            corruption_curve(brightness, batches(), add_uniform, **settings)
    with pytest.raises(SettingError, match="batches"):
        corruption_curve(brightness, [], add_uniform, [0.1])
