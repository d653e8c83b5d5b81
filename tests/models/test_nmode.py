"""NMODE: logits against the equation, losses against formulas, weights that are kept small, settings."""

import math

import numpy as np
import pytest
import torch
from adversary import inner_box, margin, smallest
from nmode_models import batch, fit, loader, small
from torch import nn
from torch.nn import functional
from trainers import quiet_trainer

from lightning_attractors.callbacks import FiniteLoss, StabilityCertificate
from lightning_attractors.dynamics.nmode import FlowMap
from lightning_attractors.errors import NonFiniteError, SettingError
from lightning_attractors.models import NMODE, TRADES, ConvBackbone, IntervalTraining


def states(model, images, steps=4000):
    """y(t̄) by Heun's method in NumPy, from the equation alone."""
    weight, bias = (p.detach().double().numpy() for p in model.layer.linear.parameters())
    gamma = images.double().flatten(1).numpy() @ weight.T + bias
    y, h = np.zeros_like(gamma), model.layer.flow.time / steps
    for _ in range(steps):
        slope = -model.layer.flow.decay * y + np.sin(y + gamma) ** 2
        ahead = y + h * slope
        y = y + h / 2 * (slope - model.layer.flow.decay * ahead + np.sin(ahead + gamma) ** 2)
    return y


@pytest.mark.parametrize(("decay", "time"), [(3.0, 1.0), (1.5, 0.05), (0.8, 2.0)])
def test_logits_are_a_linear_map_of_the_integrated_states(decay, time):
    model, (images, _) = small(decay=decay, time=time), batch()
    weight, bias = (p.detach().double().numpy() for p in model.head.parameters())
    expected = states(model, images) @ weight.T + bias
    np.testing.assert_allclose(model(images).detach().numpy(), expected, atol=1e-5)


def test_attacks_reach_the_images():
    model = small().double()
    images = batch(2)[0].double().requires_grad_()
    assert torch.autograd.gradcheck(model, images, fast_mode=True)


def test_the_penalty_is_the_largest_row_sum_and_pushes_that_row_down():
    plain, penalised = small(), small(gain_penalty=0.3)
    penalised.load_state_dict(plain.state_dict())
    data = batch()
    losses = {}
    for name, model in (("plain", plain), ("penalised", penalised)):
        model.log = lambda *_, **__: None
        losses[name] = model.training_step(data, 0)
        losses[name].backward()
    weight = plain.layer.linear.weight.detach().double().numpy()
    sums = np.abs(weight).sum(axis=1)
    assert (losses["penalised"] - losses["plain"]).item() == pytest.approx(0.3 * sums.max(), rel=1e-5)
    expected = np.zeros_like(weight)
    expected[sums.argmax()] = 0.3 * np.sign(weight[sums.argmax()])
    difference = penalised.layer.linear.weight.grad - plain.layer.linear.weight.grad
    np.testing.assert_allclose(difference.numpy(), expected, atol=1e-6)


def test_smoothed_labels_share_the_target_among_all_classes():
    model = small(label_smoothing=0.3)
    images, labels = batch()
    target = 0.7 * functional.one_hot(labels, 3) + 0.3 / 3
    expected = -(target * model(images).log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(model.classification_loss(images, labels, 0), expected)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_clip_holds_at_the_start_and_after_every_step(tmp_path, precision):
    model = small(clip=0.05, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=30.0))
    assert model.layer.linear.weight.abs().max().item() == pytest.approx(0.05)
    seen = []
    model.on_before_zero_grad = lambda _: seen.append(model.layer.linear.weight.abs().max().item())
    fit(model, tmp_path, precision=precision)
    assert seen
    assert max(seen) <= 0.05 + 1e-9
    assert (model.layer.linear.weight.abs() == torch.tensor(0.05)).double().mean() > 0.3
    assert model.head.weight.abs().max().item() > 0.05


def test_the_clip_holds_for_weights_that_were_trained_without(tmp_path):
    trainer = fit(small(), tmp_path)
    trainer.save_checkpoint(tmp_path / "free.ckpt")
    model, seen = small(clip=0.01), []
    model.on_train_batch_start = lambda *_: seen.append(model.layer.linear.weight.abs().max().item())
    resumed = quiet_trainer(tmp_path, [], max_epochs=2)
    resumed.fit(model, loader(), ckpt_path=tmp_path / "free.ckpt", weights_only=False)
    assert seen == pytest.approx([0.01] * 3)


@pytest.mark.parametrize("decay", [3.0, 1.0, 0.7])
def test_gain_bounds_are_in_order(decay):
    model = small(decay=decay, time=2.0)
    bounds = model.gain_bounds()
    rate = decay - 1
    limit = 2.0 if rate == 0 else (1 - math.exp(-2 * rate)) / rate
    assert bounds["finite_time_gain"] == pytest.approx(limit)
    assert 0 < bounds["exact_gain"] <= limit * (1 + 1e-5)
    assert ("published_gain" in bounds) == (decay > 1)
    assert bounds.get("published_gain", math.inf) >= limit
    tau = float(np.abs(model.layer.linear.weight.detach().double().numpy()).sum(axis=1).max())
    assert bounds["tau"] == pytest.approx(tau, rel=1e-12)
    assert bounds["layer_bound"] == pytest.approx(tau * FlowMap(decay, 2.0).gain, rel=1e-6)
    x = torch.rand(200, 36)
    moved = x + 0.01 * torch.randn_like(x).sign()
    change = (model.layer(moved) - model.layer(x)).abs().max().item()
    assert change <= bounds["layer_bound"] * 0.01 + 1e-6


def test_without_a_layer_the_head_sits_on_the_backbone(tmp_path):
    model = small(width=0, trades=TRADES(steps=1))
    images, _ = batch()
    torch.testing.assert_close(model(images), functional.linear(images.flatten(1), *model.head.parameters()))
    fit(model, tmp_path, callbacks=[StabilityCertificate()])
    assert model.gain_bounds() == {}


def test_a_checkpoint_of_another_backbone_is_refused(tmp_path):
    class Negative(nn.Flatten):
        def forward(self, images):
            return 1 - super().forward(images)

    trainer = fit(small(backbone=Negative()), tmp_path)
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    with pytest.raises(SettingError, match="backbone='Flatten': must be the checkpoint's own, Negative"):
        NMODE.load_from_checkpoint(path)
    again = NMODE.load_from_checkpoint(path, backbone=Negative())
    images, _ = batch()
    torch.testing.assert_close(again(images), trainer.model(images))


@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_a_decay_of_1_or_less_is_warned_of_trained_and_certified(decay, tmp_path):
    with pytest.warns(UserWarning, match=rf"^decay={decay}: the published gain bound"):
        model = small(decay=decay, intervals=IntervalTraining(warmup=0, ramp=0, epsilon=0.01))
    fit(model, tmp_path)
    images, _ = batch(32)
    labels = model(images).argmax(dim=1)
    radii = model.certified_radii(images, labels)
    assert (radii > 0).double().mean() > 0.5
    low, high = inner_box(images, radii, (0.0, 1.0))
    assert bool((smallest(margin(model, labels), low, high) >= 0).all())


def test_nan_stops_training_with_one_line(tmp_path):
    for settings in ({}, {"trades": TRADES(steps=1)}, {"intervals": IntervalTraining(warmup=0, ramp=0)}):
        images, labels = batch()
        images[-1] = math.nan  # the first batch would be refused for it
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), len(images) // 2)
        with pytest.raises(NonFiniteError, match=r"^loss is nan at step 1") as caught:
            fit(small(**settings), tmp_path, data, callbacks=[FiniteLoss()])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": -1}, "width=-1: must be at least 0"),
        ({"decay": 0.0}, r"decay=0\.0: must be finite and above 0"),
        ({"decay": math.nan}, "decay=nan"),
        ({"time": 0.0}, r"time=0\.0: must be finite and above 0"),
        ({"time": math.inf}, "time=inf"),
        ({"clip": 0.0}, r"clip=0\.0: must be null, or finite and above 0"),
        ({"gain_penalty": -0.1}, r"gain_penalty=-0\.1"),
        ({"label_smoothing": 1.5}, r"label_smoothing=1\.5: must be from 0 to 1"),
        ({"width": 0, "clip": 0.1}, r"clip=0\.1: must be null where width is 0"),
        ({"width": 0, "gain_penalty": 0.1}, r"gain_penalty=0\.1: must be 0 where width is 0"),
        ({"trades": TRADES(), "intervals": IntervalTraining()}, "trades="),
        ({"backbone": nn.Linear(5, 4)}, r"model\.backbone='Linear': must accept images of shape \(1, 6, 6\)"),
        ({"backbone": ConvBackbone(3)}, r"model\.backbone='ConvBackbone'"),
        ({"backbone": nn.Conv2d(1, 2, 9)}, r"model\.backbone='Conv2d'"),
        ({"backbone": nn.Flatten(0)}, r"model\.backbone='Flatten': must give one tensor"),
        ({"backbone": nn.Flatten(5)}, r"model\.backbone='Flatten': must accept images"),
        ({"backbone": nn.Tanh(), "intervals": IntervalTraining()}, "Tanh"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(SettingError, match=f"^{message}" if "Tanh" not in message else message) as caught:
        small(**settings)
    assert "\n" not in str(caught.value)
