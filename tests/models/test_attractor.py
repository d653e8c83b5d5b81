"""The base of the attractor models: a family needs no more than a right-hand side."""

import copy

import pytest
import torch
from torch import nn
from trainers import quiet_trainer

from lightning_attractors.certificates import certify_equilibria
from lightning_attractors.data import LettersDataModule
from lightning_attractors.dynamics.integrate import clipped, euler_maruyama, integrate
from lightning_attractors.dynamics.planted import DampedNoise, block_patterns, damping_scale
from lightning_attractors.models import CVFR, SANODE, AttractorClassifier, FieldClassifier
from lightning_attractors.random import keyed_generator


class Toy(AttractorClassifier):
    """ẋ = x − 4x³ + M (1 − P) x, which is 0 at ±½ patterns. No fused step, not even a coupled field."""

    def __init__(self, sigma=0.0, integrator="euler", bound=None, steps=8):
        patterns = block_patterns(5, 49, low=-0.5, high=0.5)
        super().__init__(patterns, (1, 7, 7), 0.25, steps, None, integrator, {}, bound=bound)
        self.sigma = sigma
        basis, _ = torch.linalg.qr(patterns.T)
        self.register_buffer("projector", basis @ basis.T)
        self.weight = nn.Parameter(0.03 * torch.randn(49, 49))

    def field(self):
        with torch.autocast(self.device.type, enabled=False):
            others = torch.eye(49).to(self.projector) - self.projector
            matrix = self.weight @ others
        return lambda x: x - 4 * x * x * x + nn.functional.linear(x, matrix)

    def noise(self, stream, *key):
        if not self.sigma:
            return None
        generator = keyed_generator(self.device, stream, *key)
        return DampedNoise(self.attractors, self.sigma, generator, damping_scale(self.attractors))


SETTINGS = {
    "plain": {},
    "noisy": {"sigma": 0.1},
    "clipped": {"bound": 0.6},
    "noisy and clipped": {"sigma": 0.1, "bound": 0.6},
    "of fourth order": {"integrator": "rk4"},
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_field_without_a_fused_step_is_trained(settings, precision, tmp_path):
    model = Toy(**settings)
    data = LettersDataModule(n_train=100, n_val=25, n_test=25, batch_size=25)
    trainer = quiet_trainer(tmp_path, [], max_epochs=15, precision=precision)
    model.optimizer_factory = lambda parameters: torch.optim.Adam(parameters, lr=0.005)
    before = trainer.validate(copy.deepcopy(model), data, verbose=False)[0]
    trainer.fit(model, data)
    after = trainer.validate(model, data, verbose=False)[0]
    assert after["val/loss"] < 0.5 * before["val/loss"]
    assert after["val/accuracy"] > 0.8
    assert trainer.test(model, data, verbose=False)[0]["test/accuracy"] > 0.8
    assert all(certificate.flow.is_fixed for certificate in certify(model.double()))


def certify(model):
    return certify_equilibria(model.equilibria(), model.vector_field, model.step_map)


@pytest.mark.parametrize("sigma", [0.0, 0.4], ids=["quiet", "noisy"])
@pytest.mark.parametrize("bound", [None, 0.45], ids=["free", "clipped"])
def test_its_final_state_is_that_of_the_plain_integration(sigma, bound):
    model = Toy(sigma, bound=bound).double().eval()
    images = torch.rand(6, 1, 7, 7, dtype=torch.float64)
    noise = model.noise(4, 0, 0)
    step = euler_maruyama(noise) if noise else (lambda field, x, dt: x + dt * field(x))
    step = clipped(step, bound) if bound else step
    expected = integrate(model.field(), images.flatten(1), 0.25, 8, step)
    torch.testing.assert_close(model.final_state(images), expected)
    assert bool((expected.abs() == 0.45).any()) == (bound is not None)


def test_its_state_stays_float32_under_autocast_and_its_products_are_bfloat16():
    model, images = Toy(), torch.rand(6, 1, 7, 7)
    exact = model.final_state(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.final_state(images)
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - exact).abs().max() < 0.05
    assert torch.autograd.gradcheck(Toy(steps=3).double(), torch.rand(2, 1, 7, 7).double().requires_grad_())


class Wells(nn.Module):
    def __init__(self):
        super().__init__()
        self.coupling = nn.Linear(49, 49)

    def forward(self, x):
        return x - x**3 + 0.1 * self.coupling(x)


RECOMPUTED = {
    "SANODE": lambda **settings: SANODE(5, (1, 7, 7), steps=10, **settings),
    "noisy CVFR": lambda **settings: CVFR(5, (1, 7, 7), steps=10, sigma=0.1, **settings),
    "Runge-Kutta": lambda **settings: SANODE(5, (1, 7, 7), steps=10, integrator="rk4", **settings),
    "own field": lambda **settings: FieldClassifier(Wells(), 5, (1, 7, 7), steps=10, **settings),
}


@pytest.mark.parametrize("make", RECOMPUTED.values(), ids=RECOMPUTED)
def test_a_training_step_that_keeps_fewer_states_has_the_same_gradients(make):
    images, found = torch.rand(4, 1, 7, 7), []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = make(recompute=recompute)
        assert model.hparams["recompute"] is recompute
        loss = (model.final_state(images) - model.attractors[:4]).square().sum()
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for kept, again in zip(*found, strict=True):
        torch.testing.assert_close(again, kept, rtol=1e-4, atol=1e-5)
