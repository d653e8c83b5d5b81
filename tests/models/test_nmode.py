"""NMODE: losses against formulas, nmODE+, TRADES and interval training, backbones that fit or do not."""

import copy
import math

import numpy as np
import pytest
import torch
from adversary import inner_box, margin, smallest
from torch import nn
from torch.nn import functional
from trainers import quiet_trainer

from lightning_attractors.callbacks import FiniteLoss, StabilityCertificate
from lightning_attractors.dynamics.nmode import FlowMap
from lightning_attractors.errors import NonFiniteError, SettingError
from lightning_attractors.models import NMODE, TRADES, ConvBackbone, IntervalTraining, ResNet18Features
from lightning_attractors.models.interval_training import is_certified, worst_case_loss
from lightning_attractors.random import keyed_generator

SHAPE = (1, 6, 6)
CPU = torch.device("cpu")


def small(**settings):
    return NMODE(**{"num_classes": 3, "image_shape": SHAPE, "width": 12, **settings})


def batch(count=8):
    return torch.rand(count, *SHAPE), torch.arange(count) % 3


def loader(count=24):
    images, labels = batch(count)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=8)


def fit(model, path, data=None, callbacks=(), **settings):
    trainer = quiet_trainer(path, [*callbacks], **{"max_epochs": 1, **settings})
    trainer.fit(model, loader() if data is None else data)
    return trainer


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


def transcribed_trades(model, x, y, generator, step_size, epsilon, steps, beta):
    """``trades_loss`` of the authors' repository, distance ``l_inf``, with a generator."""
    criterion = nn.KLDivLoss(reduction="sum")
    model.eval()
    x_adv = x.detach() + 0.001 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    x_adv = torch.clamp(x_adv, 0.0, 1.0)
    for _ in range(steps):
        x_adv.requires_grad_()
        with torch.enable_grad():
            kl = criterion(functional.log_softmax(model(x_adv), dim=1), functional.softmax(model(x), dim=1))
        gradient = torch.autograd.grad(kl, [x_adv])[0]
        x_adv = x_adv.detach() + step_size * torch.sign(gradient.detach())
        x_adv = torch.min(torch.max(x_adv, x - epsilon), x + epsilon)
        x_adv = torch.clamp(x_adv, 0.0, 1.0)
    model.train()
    natural = functional.cross_entropy(model(x), y)
    clean, attacked = functional.softmax(model(x), dim=1), functional.softmax(model(x_adv), dim=1)
    return natural + beta * (clean * (clean / attacked).log()).sum() / len(x)


def test_trades_is_the_authors_loss():
    trades = TRADES(beta=3.0, epsilon=0.1, step_size=0.03, steps=4, seed=7)
    backbone = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())
    model = small(backbone=backbone, trades=trades).double()
    images, labels = batch()
    images = images.double()
    key = (7, 0, 0, 5, 2)  # seed, rank, stream, step, batch
    twin = copy.deepcopy(model)  # the transcription moves its statistics
    expected = transcribed_trades(twin, images, labels, keyed_generator(CPU, *key), 0.03, 0.1, 4, 3.0)
    attacked = model.attacked(images, *key[2:])
    loss = trades.loss(model(images), model(attacked), labels)
    torch.testing.assert_close(loss, expected)
    plain = functional.cross_entropy(model(images), labels)
    assert loss > plain
    assert (attacked - images).abs().max() <= 0.1 + 1e-12
    assert attacked.min() >= 0
    assert attacked.max() <= 1


def test_the_attack_leaves_gradients_modes_and_statistics_alone():
    backbone = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    model = small(backbone=backbone, trades=TRADES(steps=2))
    backbone[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with torch.inference_mode():
        attacked = model.attacked(torch.rand(4, *SHAPE), 1, 0)
    assert torch.isfinite(attacked).all()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_trades_under_autocast_still_trains_every_parameter():
    model, (images, labels) = small(trades=TRADES(steps=2, epsilon=0.1)), batch()
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            attacked = model.attacked(images, 0, 0)
            model.trades.loss(model(images), model(attacked), labels).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for exact, rounded in zip(*gradients, strict=True):
        assert (exact - rounded).norm() < 0.1 * exact.norm()


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


def test_the_robust_accuracy_chooses_the_best_with_trades(tmp_path):
    model = small(trades=TRADES(steps=1, epsilon=0.3, step_size=0.3))
    trainer = quiet_trainer(tmp_path, [], max_epochs=1)
    trainer.fit(model, loader(), loader())
    metrics = trainer.callback_metrics
    assert model.monitor == "val/robust_accuracy"
    assert metrics["val/robust_accuracy"] <= metrics["val/accuracy"]


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
        images[3] = math.nan
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=8)
        with pytest.raises(NonFiniteError, match=r"^loss is nan at step 0") as caught:
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


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        *((TRADES, "beta", -1), (TRADES, "epsilon", 0), (TRADES, "epsilon", 2), (TRADES, "step_size", 0)),
        *((TRADES, "steps", 0), (TRADES, "seed", -1), (IntervalTraining, "epsilon", 0)),
        *((IntervalTraining, "warmup", -1), (IntervalTraining, "ramp", -1)),
        *((IntervalTraining, "kappa_end", 1.1), (IntervalTraining, "kappa_end", -0.1)),
        *((ConvBackbone, "in_channels", 0), (ConvBackbone, "channels", [])),
        *((ConvBackbone, "strides", [0, 1]), (ConvBackbone, "kernel_sizes", [3])),
    ],
)
def test_settings_of_its_parts_are_refused(kind, setting, value):
    with pytest.raises(SettingError, match=rf"{setting}="):
        kind(**{setting: value})


def test_a_frozen_backbone_stays_as_it_is(tmp_path):
    model = small(image_shape=(3, 8, 8), backbone=ResNet18Features(frozen=True))
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    data = torch.utils.data.TensorDataset(torch.rand(8, 3, 8, 8), torch.arange(8) % 3)
    fit(model, tmp_path, torch.utils.data.DataLoader(data, batch_size=8))
    assert not model.train().backbone.bn1.training
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())


def test_backbones_start_from_files(tmp_path):
    source = ResNet18Features()
    images = torch.rand(2, 3, 8, 8)
    expected = source.eval()(images)
    assert expected.shape == (2, 512)
    torch.save({**source.state_dict(), "fc.weight": torch.zeros(10, 512)}, tmp_path / "plain.pt")
    inside = {f"backbone.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": {**inside, "head.bias": torch.zeros(3)}}, tmp_path / "run.ckpt")
    for name in ("plain.pt", "run.ckpt"):
        loaded = ResNet18Features(weights=str(tmp_path / name))
        assert torch.equal(loaded.eval()(images), expected)


def test_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    with pytest.raises(SettingError, match="cannot be read"):
        ResNet18Features(weights=str(path))
    weights = ResNet18Features().state_dict()
    torch.save({**weights, "conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(SettingError, match=r"conv1.weight has shape \(64, 3, 7, 7\), this backbone needs"):
        ResNet18Features(weights=str(path))
    for content in ([1], {"state_dict": {}}, {"state_dict": {"head.bias": torch.zeros(3)}}):
        torch.save(content, path)
        with pytest.raises(SettingError, match="must be a file of a state dict"):
            ResNet18Features(weights=str(path))
    path.write_bytes(b"no weights")
    with pytest.raises(SettingError, match="must be a file of a state dict"):
        ResNet18Features(weights=str(path))
