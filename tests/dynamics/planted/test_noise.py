import math

import pytest
import torch

from lightning_attractors.dynamics.integrate import euler_maruyama
from lightning_attractors.dynamics.planted import DampedNoise, damping_scale, random_patterns
from lightning_attractors.random import keyed_generator

CPU = torch.device("cpu")


def noise(attractors, sigma=0.3, *key):
    return DampedNoise(attractors, sigma, keyed_generator(CPU, *(key or (0,))), damping_scale(attractors))


def damping(attractors, x):
    silent = noise(attractors)
    return silent.damping(silent.distances(x))


@pytest.mark.parametrize(("classes", "nodes"), [(3, 49), (10, 784), (26, 49)])
def test_noise_is_silent_at_attractors_and_loud_far_away(classes, nodes):
    attractors = random_patterns(classes, nodes, 0.0, 1.04)
    assert damping(attractors, attractors).max() < 1e-10
    assert noise(attractors)(attractors).abs().max() < 1e-8
    # Images with a digit's share of bright pixels, and states twice as far as attractors are from each other.
    assert damping(attractors, torch.rand(100, nodes).lt(0.15).float()).mean() > 0.99
    away = torch.nn.functional.normalize(torch.randn(100, nodes), dim=1)
    scale = noise(attractors).scale
    assert damping(attractors, attractors[:1] + 2 * scale**0.5 * away).min() > 0.99
    # It sets in gently: a hundredth of the scale beside an attractor it is still small.
    near = damping(attractors, attractors[:1] + 0.1 * scale**0.5 * away)
    assert near.max() < 0.3
    assert near.min() > 0.001


def test_damping_is_finite_however_far_and_however_many_attractors():
    attractors = random_patterns(26, 49, 0.0, 1.0)
    x = (1e4 * torch.ones(1, 49)).requires_grad_()
    (gradient,) = torch.autograd.grad(damping(attractors, x).sum(), x)
    assert damping(attractors, x).item() == 1
    assert gradient.eq(0).all()


def test_steps_add_gaussian_noise_of_variance_sigma_squared_dt():
    attractors = random_patterns(2, 50, 0.0, 1.0)
    x = torch.full((4000, 50), 9.0)  # so far away that d = 1
    step = euler_maruyama(noise(attractors, 0.7))
    moved = step(torch.zeros_like, x, 0.2) - x
    assert moved.std().item() == pytest.approx(0.7 * math.sqrt(0.2), rel=0.01)
    assert abs(moved.mean().item()) < 0.005
    # Every sample and node has its own.
    assert torch.corrcoef(moved[:, :10].T).fill_diagonal_(0).abs().max() < 0.1
    kurtosis = (moved / moved.std()).pow(4).mean().item()
    assert kurtosis == pytest.approx(3, abs=0.1)


def test_a_realisation_is_a_function_of_its_key():
    attractors, x = random_patterns(2, 9, 0.0, 1.0), torch.full((3, 9), 2.0)
    keys = [(0, 1), (1, 0), (0, 0), (0, 1, 0)]
    first = [noise(attractors, 0.3, *key)(x) for key in keys]
    again = [noise(attractors, 0.3, *key)(x) for key in keys]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({value.sum().item() for value in first}) == len(keys)
    one = noise(attractors)
    assert not torch.equal(one(x), one(x))
