import functools
import math

import pytest
import torch
from refusals import refusal

from lightning_attractors.dynamics.planted import DampedNoise, damping_scale, random_patterns
from lightning_attractors.models import CVFR
from lightning_attractors.random import keyed_generator

FORMS = ["saturating", "published"]
# Squared distances of 9, 16 and 25 between them; 5, 8 and 5 from the state
CORNERS = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
STATE = torch.tensor([[1.0, 2.0]], dtype=torch.float64)


def noise(attractors, form="saturating"):
    generator = keyed_generator(torch.device("cpu"), 0)
    return DampedNoise(attractors, 0.3, generator, damping_scale(attractors), form=form)


def damping(attractors, x, form="saturating"):
    silent = noise(attractors, form)
    return silent.damping(silent.distances(x))


def test_the_published_form_is_tanh_of_the_product_of_scaled_squared_distances():
    expected = math.tanh(2 * 5 * 8 * 5 / (9 * 16 * 25))
    assert damping(CORNERS, STATE, "published").item() == pytest.approx(expected, rel=1e-12)


def test_the_saturating_form_is_a_product_of_factors():
    scale = (9 * 16 * 25) ** (1 / 3)
    factors = [math.tanh(2 * u + (4 * u) ** 3) for u in (5 / scale, 8 / scale, 5 / scale)]
    assert damping(CORNERS, STATE).item() == pytest.approx(math.prod(factors), rel=1e-12)


@pytest.mark.parametrize(("classes", "nodes"), [(2, 49), (3, 49), (26, 49), (10, 784), (100, 784)])
def test_noise_is_loud_away_from_all_attractors_however_many_there_are(classes, nodes):
    attractors = random_patterns(classes, nodes, 0.0, 1.04)
    generator = torch.Generator().manual_seed(0)
    # Images under strong attacks, and the mean of all attractors; of two that is the middle between them.
    assert damping(attractors, torch.rand(200, nodes, generator=generator)).mean() > 0.99
    assert damping(attractors, attractors.mean(dim=0, keepdim=True)) > (0.95 if classes > 2 else 0.8)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("classes", [3, 26])
def test_both_forms_set_in_alike_beside_an_attractor(form, classes):
    attractors = random_patterns(classes, 784, 0.0, 1.04).double()
    assert damping(attractors, attractors, form).max() < 1e-10
    scale = damping_scale(attractors)
    away = torch.nn.functional.normalize(torch.randn(classes, 784, dtype=torch.float64), dim=1)
    found = damping(attractors, attractors + 0.02 * scale**0.5 * away, form)
    # Twice u = 0.02², up to how much nearer than others some attractors are to it
    assert found.log().mean().exp().item() == pytest.approx(2 * 0.02**2, rel=0.05)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("near", [0.02, 0.2, 0.5, 3.0])
def test_the_slope_by_hand_is_the_slope(form, near):
    attractors = torch.rand(4, 9, dtype=torch.float64)
    x = (attractors + near * torch.randn(4, 9, dtype=torch.float64)).requires_grad_()
    silent = noise(attractors, form)
    assert torch.autograd.gradcheck(lambda x: silent.damping(silent.distances(x)), [x])
    adjoint, draw = torch.randn(2, 4, 9, dtype=torch.float64)
    weighted = silent.damping(silent.distances(x)) * silent.amplitude(0.2) * draw * adjoint
    (expected,) = torch.autograd.grad(weighted.sum(), x)
    found = torch.zeros_like(x)
    with torch.no_grad():
        silent.pull_back_(x, silent.distances(x), adjoint, draw, 0.2, found)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("far", [0.0, 1e4, 1e30])
def test_slopes_are_finite_at_attractors_and_however_far(form, far):
    attractors = random_patterns(26, 49, 0.0, 1.0)
    x, silent = attractors + far, noise(attractors, form)
    found = torch.zeros_like(x)
    silent.pull_back_(x, silent.distances(x), torch.ones_like(x), torch.ones_like(x), 0.2, found)
    assert found.abs().max() < 1e-6


def test_the_setting_chooses_and_old_checkpoints_load(tmp_path):
    make = functools.partial(CVFR, num_classes=3, image_shape=(1, 4, 5), steps=5, sigma=0.5)
    model, published = make(), make(damping="published")
    published.load_state_dict(model.state_dict())
    images = 0.5 + 0.1 * torch.rand(2, 1, 4, 5)
    assert not torch.allclose(model.eval()(images), published.eval()(images))
    # A checkpoint of before the setting: neither weights nor settings know of it.
    settings = {key: value for key, value in published.hparams.items() if key != "damping"}
    old = {"state_dict": published.state_dict(), "hyper_parameters": settings}
    torch.save({**old, "pytorch-lightning_version": "2.0.0"}, tmp_path / "old.ckpt")
    loaded = CVFR.load_from_checkpoint(tmp_path / "old.ckpt", map_location="cpu").eval()
    assert loaded.damping == "saturating"
    assert torch.equal(loaded(images), model(images))
    again = CVFR.load_from_checkpoint(tmp_path / "old.ckpt", map_location="cpu", damping="published").eval()
    assert torch.equal(again(images), published(images))


def test_without_noise_the_form_means_nothing():
    models = [CVFR(3, (1, 4, 5), steps=5, damping=form) for form in FORMS]
    models[1].load_state_dict(models[0].state_dict())
    images = torch.rand(2, 1, 4, 5)
    assert torch.equal(models[0](images), models[1](images))


def test_a_form_that_is_none_is_refused():
    assert "damping='cubic': must be one of ['published', 'saturating']" in refusal(
        CVFR, num_classes=3, image_shape=(1, 4, 5), damping="cubic"
    )
