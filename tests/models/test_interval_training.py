"""Interval training: its schedule, its loss against formulas, and certificates that hold."""

import math

import pytest
import torch
from nmode_models import batch, loader, small
from torch.nn import functional
from trainers import quiet_trainer

from lightning_attractors.errors import SettingError
from lightning_attractors.models import ConvBackbone, IntervalTraining
from lightning_attractors.models.interval_training import is_certified, worst_case_loss


@pytest.mark.parametrize(
    ("epoch", "epsilon", "kappa"),
    [(0, 0, 1), (2, 0, 1), (3.5, 0.1, 0.8), (5, 0.2, 0.6), (8, 0.4, 0.2), (100, 0.4, 0.2)],
)
def test_epsilon_rises_while_kappa_falls(epoch, epsilon, kappa):
    schedule = IntervalTraining(epsilon=0.4, warmup=2, ramp=6, kappa_end=0.2).schedule(epoch)
    assert schedule == pytest.approx((epsilon, kappa))


def test_without_a_ramp_training_is_at_the_target_at_once():
    assert IntervalTraining(epsilon=0.1, warmup=0, ramp=0).schedule(0) == (0.1, 0.5)
    late = IntervalTraining(epsilon=0.1, warmup=1, ramp=0)
    assert (late.schedule(0.5), late.schedule(1)) == ((0, 1), (0.1, 0.5))


@pytest.mark.parametrize("backbone", [None, ConvBackbone(1, [2, 3], [3, 3], [1, 2])])
def test_the_interval_loss_is_the_clean_one_at_0_and_grows_with_epsilon(backbone):
    model = small(backbone=backbone, intervals=IntervalTraining()).double()
    images, labels = batch()
    images = images.double()
    clean = functional.cross_entropy(model(images), labels)
    losses = torch.stack([model.interval_loss(images, labels, e, 0.5) for e in (0.0, 0.01, 0.05)])
    assert losses[0].item() == pytest.approx(clean.item(), abs=1e-4)  # of float32 rounding, which it covers
    assert (losses.diff() > 0).all()
    worst = worst_case_loss(model.margins(images, labels, 0.05), labels)
    torch.testing.assert_close(model.interval_loss(images, labels, 0.05, 0.3), 0.3 * clean + 0.7 * worst)
    assert model.interval_loss(images, labels, 0.05, 1.0) == clean


def test_worst_logits_by_hand():
    margins = torch.tensor([[0.0, 2.0, -1.0], [3.0, 0.0, 0.5]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    expected = (math.log(1 + math.exp(-2) + math.exp(1)) + math.log(1 + math.exp(-3) + math.exp(-0.5))) / 2
    assert worst_case_loss(margins, labels).item() == pytest.approx(expected)
    assert is_certified(margins, labels).tolist() == [False, True]


def test_images_within_a_certificate_keep_their_class():
    model = small(intervals=IntervalTraining())
    images, _ = batch(64)
    labels = model(images).argmax(dim=1)
    epsilon = 0.02
    certified = is_certified(model.margins(images.double(), labels, epsilon), labels)
    assert certified.any()
    for _ in range(50):
        corner = (images + epsilon * torch.randn_like(images).sign()).clamp(0, 1)
        assert (model(corner).argmax(dim=1) == labels)[certified].all()


def test_epsilon_and_certified_accuracy_are_logged_and_choose_the_best(tmp_path):
    model = small(intervals=IntervalTraining(epsilon=0.05, warmup=0, ramp=2))
    seen = []
    model.on_train_batch_end = lambda *_: seen.append(model.trainer.callback_metrics["train/epsilon"].item())
    trainer = quiet_trainer(tmp_path, [], max_epochs=2)
    trainer.fit(model, loader(), loader())
    assert seen == pytest.approx([0.025 * k / 3 for k in range(6)])
    assert model.monitor == "val/certified_accuracy"
    assert model.monitor in trainer.callback_metrics
    (result,) = trainer.test(model, loader(), verbose=False)
    assert result["test/certified_accuracy"] <= result["test/accuracy"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("epsilon", 0), ("warmup", -1), ("ramp", -1), ("kappa_end", 1.1), ("kappa_end", -0.1)],
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(SettingError, match=rf"{setting}="):
        IntervalTraining(**{setting: value})
