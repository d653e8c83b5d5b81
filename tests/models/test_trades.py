"""TRADES: the authors' loss, an attack that leaves the model alone, the measure that chooses the best."""

import copy

import pytest
import torch
from nmode_models import SHAPE, batch, loader, small
from torch import nn
from torch.nn import functional
from trainers import quiet_trainer

from lightning_attractors.errors import SettingError
from lightning_attractors.models import TRADES
from lightning_attractors.random import keyed_generator

CPU = torch.device("cpu")


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


def test_the_robust_accuracy_chooses_the_best_with_trades(tmp_path):
    model = small(trades=TRADES(steps=1, epsilon=0.3, step_size=0.3))
    trainer = quiet_trainer(tmp_path, [], max_epochs=1)
    trainer.fit(model, loader(), loader())
    metrics = trainer.callback_metrics
    assert model.monitor == "val/robust_accuracy"
    assert metrics["val/robust_accuracy"] <= metrics["val/accuracy"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("beta", -1), ("epsilon", 0), ("epsilon", 2), ("step_size", 0), ("steps", 0), ("seed", -1)],
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(SettingError, match=rf"{setting}="):
        TRADES(**{setting: value})
