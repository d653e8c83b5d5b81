import functools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal
from trainers import quiet_trainer

from lightning_attractors.certificates import certify_equilibria
from lightning_attractors.data import LettersDataModule
from lightning_attractors.dynamics.integrate import euler_maruyama, integrate, rk4, trajectory
from lightning_attractors.dynamics.planted import Gain
from lightning_attractors.errors import SettingError
from lightning_attractors.models import CVFR
from lightning_attractors.models.noise_stream import NoiseStream

NODES = 20
# The third pattern is the first two together.
DEPENDENT = torch.tensor([[2, 0], [0, 2], [2, 2]]).repeat(1, 10)
BETA = 1 / math.sqrt(NODES)


def make(**settings):
    return CVFR(num_classes=3, image_shape=(1, 4, 5), **{"steps": 10, **settings}).double()


def images(count=4):
    return torch.rand(count, 1, 4, 5, dtype=torch.float64)


class Ramp(Gain):
    """2x² / (1 + x²)², a gain that falls again, without a closed form of its own."""

    def __call__(self, x):
        return 2 * x.square() / (1 + x.square()).square()

    def derivative(self, x):
        squared = x.square()
        return 4 * x * (1 - squared) / (1 + squared).pow(3)


class Lopsided(Ramp):
    def __call__(self, x):
        return torch.sigmoid(x)


class Wrong(Ramp):
    def derivative(self, x):
        return -super().derivative(x)


class Steep(Ramp):
    def __call__(self, x):
        return 3 * super().__call__(x)


@pytest.mark.parametrize("coupling", ["spectral", "projected"])
@pytest.mark.parametrize("eigenvalue", [None, [5.0, 6.0, 7.5]], ids=["shared", "per class"])
@pytest.mark.parametrize("gain", [None, Ramp()], ids=["Hill", "Ramp"])
def test_attractors_are_fixed_points_of_the_flow_and_of_every_step_map(coupling, eigenvalue, gain):
    eigenvalue = [12.0, 13.0, 14.0] if gain and eigenvalue else 12.0 if gain else eigenvalue
    for integrator in ("euler", "rk4"):
        model = make(coupling=coupling, eigenvalue=eigenvalue, gain=gain, integrator=integrator)
        points = model.equilibria()
        # The planted states are stored in float32.
        assert model.vector_field(points).abs().max() < 1e-6
        assert (model.step_map(points) - points).abs().max() < 1e-6
        assert all(one.is_fixed for one in flows(model))


def flows(model):
    with torch.no_grad():
        return [one.flow for one in certify_equilibria(model.equilibria(), model.vector_field)]


def test_every_pixel_is_zero_or_the_upper_fixed_point_of_its_class():
    slopes = [1.1, 1.3, 1.5]
    model = make(eigenvalue=[slope / BETA for slope in slopes], c=0.2)
    for slope, attractor in zip(slopes, model.equilibria(), strict=True):
        upper = (slope + math.sqrt(slope**2 - 0.8)) / 2
        assert attractor.unique().tolist() == pytest.approx([0, upper])
        assert attractor.count_nonzero() == NODES // 2


@pytest.mark.parametrize("coupling", ["spectral", "projected"])
def test_vector_field_is_the_published_one(coupling):
    model = make(coupling=coupling, c=0.3, eigenvalue=8.0)
    x = torch.randn(6, NODES, dtype=torch.float64)
    rates = x**2 / (0.3 + x**2)
    expected = -x + BETA * rates @ model.coupling.matrix().T
    torch.testing.assert_close(model.vector_field(x), expected)
    planted = model.attractors**2 / (0.3 + model.attractors**2)
    torch.testing.assert_close(model.coupling.matrix() @ planted.T, 8.0 * planted.T, atol=1e-6, rtol=1e-6)


def test_jacobian_at_an_attractor_has_the_planted_eigenvalue():
    # Along x̄ the Jacobian −I + βA diag(f′) acts on ψ as βλ f′(x_p) − 1, the rest being free.
    model = make(coupling="projected")
    upper = float(model.attractors.max())
    slope = 2 * 0.1 * upper / (0.1 + upper**2) ** 2
    for flow in flows(model):
        found = torch.from_numpy(np.asarray(flow.spectrum.eigenvalues))
        assert (found - (8 / 7 * slope - 1)).abs().min() < 1e-5


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_final_state_is_the_integral_of_the_vector_field(integrator):
    model = make(integrator=integrator, dt=0.05, eval_steps=7).eval()
    x = images()
    step = {"step": rk4} if integrator == "rk4" else {}
    expected = trajectory(model.vector_field, x.flatten(1), 0.05, 7, **step)
    torch.testing.assert_close(model.final_state(x), expected[-1])
    torch.testing.assert_close(torch.stack(list(model.states(x))), expected)


def test_noisy_final_state_is_that_of_the_stochastic_equation():
    model = make(sigma=0.5).eval()
    x = images()
    noise = model.noise(NoiseStream.FORWARD, 0, 2)
    expected = integrate(model.vector_field, x.flatten(1), 0.2, 10, euler_maruyama(noise))
    torch.testing.assert_close(model.final_state(x, realisation=2), expected)
    assert (model.final_state(x, realisation=1) - expected).abs().max() > 0.01
    (*_, last) = model.states(x, realisation=2)
    torch.testing.assert_close(last, expected)


def test_logits_of_an_evaluated_model_are_one_function_the_mean_over_realisations():
    model = make(sigma=0.5, n_realisations=3).eval()
    x = images()
    mean = torch.stack([model.logits_of(model.final_state(x, r)) for r in range(3)]).mean(dim=0)
    torch.testing.assert_close(model(x), mean)
    assert torch.equal(model(x), model(x))
    # Of the image alone: not of its neighbours in the batch nor of its place there.
    torch.testing.assert_close(model(x[[2, 0]]), model(x)[[2, 0]])
    torch.testing.assert_close(model(x[3:]), model(x)[3:])
    other = make(sigma=0.5, n_realisations=3, seed=1).eval()
    other.load_state_dict(model.state_dict())
    assert not torch.equal(other(x), model(x))


def test_every_call_in_training_is_another_realisation():
    model, x = make(sigma=0.5), images(1).expand(2, -1, -1, -1)
    first, second = model(x)
    assert not torch.allclose(first, second)
    assert not torch.allclose(model(x)[0], first)


def test_noise_can_be_switched_off_in_evaluation_alone():
    model = make(sigma=0.5, n_realisations=3, eval_noise=False)
    quiet = make()
    quiet.load_state_dict(model.state_dict(), strict=False)
    x = images()
    assert not torch.allclose(model(x), quiet(x))
    assert model.is_noisy
    model.eval()
    assert not model.is_noisy
    assert torch.equal(model(x), quiet.eval()(x))
    assert model.num_realisations == 1


def test_noise_depends_on_rank_step_and_stream(monkeypatch):
    model = make(sigma=0.5)
    x = torch.full((2, NODES), 5.0, dtype=torch.float64)

    def drawn(*key):
        return model.noise(*key)(x).sum().item()

    keys = [(NoiseStream.TRAIN, 3, 0), (NoiseStream.TRAIN, 4, 0), (NoiseStream.TEST, 3, 0)]
    values = [drawn(*key) for key in keys]
    assert values == [drawn(*key) for key in keys]
    monkeypatch.setattr(CVFR, "global_rank", 1)
    values += [drawn(*key) for key in keys]
    assert len(set(values)) == 6


def test_logits_are_differentiable_in_the_images_with_and_without_noise():
    for sigma in (0.0, 0.3):
        model = make(steps=3, sigma=sigma).eval()
        assert torch.autograd.gradcheck(model, [images(2).requires_grad_()])


def test_the_nearest_attractor_has_the_largest_logit_whatever_their_sizes():
    digits = torch.zeros(3, NODES)
    digits[0, :4], digits[1, :12], digits[2, 14:] = 2, 2, 2  # the first lies within the second
    model = make(patterns=digits, eigenvalue=[5.0, 6.0, 9.0])
    logits = model.logits_of(model.attractors)
    assert logits.argmax(dim=1).tolist() == [0, 1, 2]
    assert logits.softmax(dim=1).diagonal().min() >= 0.99 - 1e-9
    x = torch.rand(50, NODES, dtype=torch.float64)
    nearest = torch.cdist(x, model.attractors).argmin(dim=1)
    assert torch.equal(model.logits_of(x).argmax(dim=1), nearest)


def test_patterns_can_use_the_whole_alphabet():
    digits = torch.randint(3, (3, NODES))
    model = make(patterns=digits)
    low, high = (8 / 7 - math.sqrt(64 / 49 - 0.4)) / 2, (8 / 7 + math.sqrt(64 / 49 - 0.4)) / 2
    expected = torch.tensor([0.0, low, high], dtype=torch.float64)[digits]
    torch.testing.assert_close(model.equilibria(), expected, atol=1e-6, rtol=0)
    assert all(flow.is_fixed for flow in flows(model))


def draw(path, levels):
    Image.fromarray(np.asarray(levels, dtype=np.uint8)).save(path)
    return str(path)


def test_patterns_can_be_drawn(tmp_path):
    levels = np.zeros((3, 4, 5))
    levels[0, 0], levels[1, 1], levels[2, 2], levels[2, 3] = 255, 255, 255, 128
    files = [draw(tmp_path / f"{k}.png", level) for k, level in enumerate(levels)]
    digits = torch.from_numpy(np.round(levels / 127.5)).long().flatten(1)
    assert digits.unique().tolist() == [0, 1, 2]
    torch.testing.assert_close(make(patterns=files).equilibria(), make(patterns=digits).equilibria())


def test_drawings_that_cannot_be_patterns_are_refused(tmp_path):
    good = [draw(tmp_path / f"{k}.png", np.eye(4, 5, k) * 255) for k in range(3)]
    gray = draw(tmp_path / "gray.png", np.full((4, 5), 60))
    wide = draw(tmp_path / "wide.png", np.eye(4, 6) * 255)
    for last, message in (
        (gray, "gray level 60': must have the gray levels [0, 128, 255]"),
        (wide, "(6, 4)': must have width and height (5, 4)"),
        (str(tmp_path / "none.png"), "must be an image file that can be read"),
        (good[0], "patterns='classes [0, 2]': must not have the same attractor"),
    ):
        with pytest.raises(SettingError) as caught:
            make(patterns=[*good[:2], last])
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"c": 0.4}, "c=0.4: must be below (βλ)²/4 = 0.326531"),
        ({"c": 0.0}, "c=0.0: must be above 0"),
        ({"sigma": -0.1}, "sigma=-0.1: must be finite and at least 0"),
        ({"sigma": math.inf}, "sigma=inf"),
        ({"eigenvalue": 0.0}, "eigenvalue=0.0: must be above 0"),
        ({"eigenvalue": -8.0}, "eigenvalue=-8.0: must be above 0"),
        (
            {"eigenvalue": [8.0, 9.0]},
            "eigenvalue=[8.0, 9.0]: must be one number, or one for each of 3 classes",
        ),
        ({"eigenvalue": [8.0, 9.0, -1.0]}, "eigenvalue=[8.0, 9.0, -1.0]: must be above 0"),
        (
            {"eigenvalue": 4.0, "gain": Ramp()},
            "eigenvalue=4.0: must give a node as many fixed points as every class has",
        ),
        ({"n_realisations": 0}, "n_realisations=0"),
        ({"seed": -1}, "seed=-1"),
        ({"distance_threshold": 0.6}, "distance_threshold=0.6"),
        ({"integrator": "rk4", "sigma": 0.1}, "integrator='rk4': must be euler where sigma is above 0"),
        ({"integrator": "midpoint"}, "integrator='midpoint'"),
        ({"coupling": "dense"}, "coupling='dense'"),
        ({"patterns": "stripes"}, "patterns='stripes': must be random, blocks or files"),
        ({"patterns": torch.eye(3, 19)}, "patterns='19 nodes': must have 20"),
        ({"patterns": torch.eye(4, 20)}, "patterns='4 patterns': must be 3, one per class"),
        ({"patterns": 3 * torch.eye(3, 20)}, "patterns=[3.0]: must be digits from 0 to 2"),
        ({"patterns": 0.5 * torch.eye(3, 20)}, "patterns=[0.5]: must be digits"),
        ({"patterns": torch.eye(3, 20)[[0, 1, 0]]}, "classes [0, 2]': must not have the same attractor"),
        ({"patterns": torch.diag(torch.tensor([1, 1, 0])) @ torch.eye(3, 20).long()}, "class 2'"),
        (
            {"patterns": DEPENDENT},
            "patterns='rank 2': the firing rates of 3 attractors must be linearly independent",
        ),
        ({"block": 3}, "block=3: must be left out, but for patterns=blocks"),
        ({"gain": Lopsided()}, "gain='Lopsided': must be 0 at 0"),
        ({"gain": Wrong()}, "gain='Wrong': derivative() must be the derivative of the gain itself"),
        ({"gain": Steep()}, "gain='Steep': must lie in [−1, 1]"),
        (
            {"eigenvalue": [12.0, 13.0, 1.0], "gain": Ramp()},
            "eigenvalue=1.0: must give a node as many fixed points",
        ),
        ({"num_classes": 1}, "num_classes=1: must be from 2 to the number of nodes, 20"),
        ({"patterns": "blocks", "block": 7}, "block=7: 3 blocks must fit into 20 nodes, so from 1 to 6"),
        ({"num_classes": 21}, "num_classes=21: must be from 2 to the number of nodes, 20"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(settings, message):
    settings = {"num_classes": 3, "image_shape": (1, 4, 5), **settings}
    assert message in refusal(CVFR, **settings)


def test_a_test_averages_over_realisations_and_reports_their_spread(tmp_path):
    model = CVFR(3, (1, 7, 7), sigma=2.0, n_realisations=4, steps=5)
    trainer = quiet_trainer(tmp_path, [])
    data = LettersDataModule(letters="ABC", n_test=30)
    (measured,) = trainer.test(model, data, verbose=False)
    images, labels = next(iter(data.test_dataloader()))
    model.eval()
    steps = [euler_maruyama(model.noise(NoiseStream.TEST, 0, r)) for r in range(4)]
    finals = [integrate(model.vector_field, images.flatten(1), model.dt, 5, step) for step in steps]
    accuracies = torch.stack([(model.logits_of(x).argmax(1) == labels).float().mean() for x in finals])
    assert accuracies.std() > 0
    assert measured["test/accuracy"] == pytest.approx(accuracies.mean().item())
    assert measured["test/accuracy_spread"] == pytest.approx(accuracies.std().item())
    losses = torch.stack([(x - model.attractors[labels]).square().sum(dim=1).mean() for x in finals])
    assert measured["test/loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert model.mse_over_time()[-1] == pytest.approx(losses.mean().item(), rel=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_it_learns_the_letters(tmp_path, sigma):
    adam = functools.partial(torch.optim.Adam, lr=0.01)
    model = CVFR(2, (1, 7, 7), coupling="projected", sigma=sigma, steps=20, optimizer=adam)
    data = LettersDataModule(letters="AL", n_train=400, n_val=10, n_test=100, noise_train=0.1, noise_test=0.1)
    trainer = quiet_trainer(tmp_path, [], max_epochs=6, gradient_clip_val=1.0)
    trainer.fit(model, data)
    (measured,) = trainer.test(model, data, verbose=False)
    assert measured["test/accuracy"] > 0.95


def test_distance_is_measured_in_units_of_the_closest_pair():
    model = make(distance_threshold=0.25)
    closest = torch.nn.functional.pdist(model.attractors).min().item()
    metric = model.val_metrics.distance_accuracy
    assert metric.threshold == pytest.approx(0.25 * closest)
