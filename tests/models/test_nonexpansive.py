"""NonexpansiveNet: losses against formulas, norms that hold, its twin, checkpoints, settings out of range."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from trainers import quiet_trainer

from lightning_attractors.callbacks import FiniteLoss
from lightning_attractors.dynamics.nonexpansive import GradientFlow
from lightning_attractors.errors import NonFiniteError, SettingError
from lightning_attractors.linalg import convolution_norm, matrix_norm
from lightning_attractors.models import NonexpansiveNet

SHAPE = (1, 8, 8)
SETTINGS = {"widths": [4, 6], "depths": [1, 1], "strides": [1, 2], "dense_depth": 1, "dense_width": 8}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(**settings):
    return NonexpansiveNet(**{"num_classes": 3, "image_shape": SHAPE, **SETTINGS, **settings})


def batch(count=8):
    return torch.rand(count, *SHAPE), torch.arange(count) % 3


def fit(model, path, callbacks=(), **settings):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch(24)), batch_size=8)
    trainer = quiet_trainer(path, [*callbacks], **{"max_epochs": 1, **settings})
    trainer.fit(model, data, data)
    return trainer


def norm(operator):
    """‖A‖₂ from above, by the weight alone and not by what the operator remembers."""
    weight = operator.weight.detach()
    if weight.dim() == 2:
        return matrix_norm(weight)
    return convolution_norm(weight, operator.image_size, operator.padding)


def flows(model):
    return [layer for layer in model.layers if isinstance(layer, GradientFlow)]


def test_the_cross_entropy_sees_the_label_lowered_by_the_margin():
    model, (images, labels) = small(margin=0.3, temperature=0.5), batch()
    logits = model(images)
    lowered = logits - 0.3 / 0.5 * functional.one_hot(labels, 3)
    expected = -lowered.log_softmax(dim=1)[torch.arange(8), labels].mean()
    torch.testing.assert_close(model.margin_loss(logits, labels), expected)
    assert model.margin_loss(logits, labels) > functional.cross_entropy(logits, labels)


def test_the_hinge_asks_for_a_lead_before_the_temperature():
    model = small(loss="hinge", margin=2.0, temperature=0.5)
    logits, labels = (
        torch.tensor([[6.0, 1.0, 0.0], [1.0, 2.0, 4.0], [0.0, 3.0, 0.0]]),
        torch.tensor([0, 1, 1]),
    )
    # leads of 2.5, −1 and 1.5 once the temperature is undone
    torch.testing.assert_close(model.margin_loss(logits, labels), torch.tensor((0 + 3 + 0.5) / 3))


@pytest.mark.parametrize("settings", [{}, {"method": "rk4", "padding": "circular"}, {"constrained": False}])
def test_attacks_reach_the_images(settings):
    model, images = small(activation="Tanh", pool=2, **settings).double(), batch(2)[0].double()
    assert torch.autograd.gradcheck(model, images.requires_grad_(), fast_mode=True)


def test_the_twin_has_the_same_parameters_and_free_weights(tmp_path):
    model, twin = small(), small(constrained=False)
    shapes = [{name: value.shape for name, value in net.named_parameters()} for net in (model, twin)]
    assert shapes[0] == shapes[1]
    assert (model.monitor, twin.monitor) == ("val/certified_accuracy", "val/accuracy")
    twin.optimizer_factory = lambda parameters: torch.optim.SGD(parameters, lr=5.0)
    fit(twin, tmp_path, max_steps=1)
    assert [flow.count() for flow in flows(twin)] == [1, 1, 1]
    assert twin.gain_bounds()["lipschitz"] > 1.5 * model.gain_bounds()["lipschitz"]


@pytest.mark.parametrize("max_substeps", [1, 3])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_norms_hold_after_every_step_however_wild(tmp_path, max_substeps, precision):
    model = small(max_substeps=max_substeps)
    model.optimizer_factory = lambda parameters: torch.optim.Adam(parameters, lr=0.3)
    counts, stiffness, gains = [], [], []

    def look(*_):
        for flow in flows(model):
            counts.append(flow.count())
            stiffness.append(2.0 * norm(flow.operator) ** 2 / 2)
        gains.append(max(model.gain_bounds().values()))

    model.on_train_batch_end = look
    fit(model, tmp_path, precision=precision)
    assert len(counts) == 9
    assert max(counts) == max_substeps
    assert max(stiffness) <= max_substeps
    assert max(stiffness) > 0.5 * max_substeps
    assert max(gains) <= 10 * (1 + 1e-6)


def test_free_norms_take_as_many_substeps_as_they_need(tmp_path):
    model = small(max_substeps=None)
    model.optimizer_factory = lambda parameters: torch.optim.Adam(parameters, lr=0.3)
    fit(model, tmp_path)
    assert max(flow.count() for flow in flows(model)) > 1
    assert model.gain_bounds()["lipschitz"] <= 10 * (1 + 1e-6)


def test_the_constant_is_the_product_of_those_of_the_layers_and_holds():
    model = small(temperature=0.25)
    bounds = model.gain_bounds()
    assert model.certified_norm == "l2"
    layers = {"lift0", "stage0_block0", "lift1", "stage1_block0", "pool", "dense_block0", "head"}
    assert bounds.keys() == {"lipschitz", *layers}
    product = math.prod(bounds[name] for name in layers)
    assert bounds["lipschitz"] == pytest.approx(4 * product, rel=1e-12)
    x, y = batch(200)[0], batch(200)[0]
    moved = (model(x) - model(y)).norm(dim=1) / (x - y).flatten(1).norm(dim=1)
    assert moved.max() <= bounds["lipschitz"]


def test_images_keep_their_class_within_their_radius(tmp_path):
    model = small(activation="LeakyReLU")
    fit(model, tmp_path)
    images, _ = batch(64)
    labels = model(images).argmax(dim=1)
    radii = model.certified_radii(images, labels)
    assert (radii > 0).all()
    for _ in range(20):
        direction = torch.randn_like(images)
        length = radii.float() / direction.flatten(1).norm(dim=1)
        assert (model(images + length.view(-1, 1, 1, 1) * direction).argmax(dim=1) == labels).all()
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=40)
    (result,) = quiet_trainer(tmp_path, []).test(model, data, verbose=False)
    assert result["test/certified_accuracy"] == pytest.approx(float((radii >= 36 / 255).double().mean()))


@pytest.fixture
def saved(tmp_path):
    model = small(activation="Tanh", max_substeps=2)
    fit(model, tmp_path, max_epochs=2).save_checkpoint(tmp_path / "model.ckpt")
    return model.eval(), tmp_path / "model.ckpt"


def test_a_checkpoint_gives_identical_logits_and_no_warning(saved):
    model, path = saved
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*recomputed")
        again = NonexpansiveNet.load_from_checkpoint(path).eval()
    images, _ = batch()
    assert torch.equal(again(images), model(images))
    assert again.hparams["activation"] == "Tanh"
    assert "optimizer" not in again.hparams


def test_a_checkpoint_whose_norms_do_not_match_is_recomputed_with_a_warning(saved):
    model, path = saved
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["state_dict"]["layers.stage1_block0.operator._extra_state"] *= 5
    torch.save(checkpoint, path)
    with pytest.warns(
        UserWarning, match=r"^the checkpoint gives .* shape \(6, 6, 3, 3\).*: recomputed$"
    ) as seen:
        again = NonexpansiveNet.load_from_checkpoint(path).eval()
    assert len([w for w in seen if "recomputed" in str(w.message)]) == 1
    assert "\n" not in str(seen[0].message)
    images, _ = batch()
    assert torch.equal(again(images), model(images))
    assert again.gain_bounds() == pytest.approx(model.gain_bounds())


def test_weights_that_shrank_are_saved_with_their_own_norm(tmp_path):
    model = small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.01)
    model.constrain_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small().load_state_dict(model.state_dict())


def test_a_module_as_activation_must_be_given_again(tmp_path):
    model = small(activation=nn.ReLU6(), lipschitz=1.0)
    assert "activation" not in model.hparams
    fit(model, tmp_path).save_checkpoint(tmp_path / "model.ckpt")
    again = NonexpansiveNet.load_from_checkpoint(tmp_path / "model.ckpt", activation=nn.ReLU6())
    images, _ = batch()
    assert torch.equal(again.eval()(images), model.eval()(images))


@pytest.mark.parametrize(
    ("constrained", "message"), [(True, "^the weight of shape .* is not finite"), (False, "^loss is nan")]
)
def test_weights_that_are_nan_stop_training_with_one_line(tmp_path, constrained, message):
    model = small(constrained=constrained)

    def poison(*_):
        with torch.no_grad():
            model.head.operator.weight[0, 0] = math.nan

    model.on_train_batch_start = poison
    with pytest.raises(NonFiniteError, match=message) as caught:
        fit(model, tmp_path, [FiniteLoss()])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": []}, r"widths=\[\]: must be numbers of at least 1, and one"),
        ({"widths": [0, 4]}, r"widths=\[0, 4\]"),
        ({"depths": [1]}, r"depths=\[1\]: must be 2 numbers, as widths, each at least 0"),
        ({"depths": [-1, 1]}, r"depths=\[-1, 1\]"),
        ({"strides": [1, 1, 1]}, r"strides=\[1, 1, 1\]: must be 2 numbers, as widths, each at least 1"),
        ({"strides": [0, 1]}, r"strides=\[0, 1\]"),
        ({"strides": [2, 3]}, r"strides=\[2, 3\]: must divide the sides of the images, which come to 4 × 4"),
        ({"pool": 3}, r"pool=3: must divide the sides of the images, which come to 4 × 4"),
        ({"pool": 0}, "pool=0"),
        ({"kernel_size": 5}, r"kernel_size=5: must not be larger than the images, \(4, 4\)"),
        ({"kernel_size": 2}, "kernel_size=2: must be odd"),
        ({"padding": "reflect"}, "padding='reflect': must be zeros or circular"),
        ({"dense_depth": -1}, "dense_depth=-1: must be at least 0"),
        ({"dense_width": 0}, "dense_width=0: must be at least 1"),
        ({"span": 0.0}, r"span=0\.0: must be finite and above 0"),
        ({"activation": "SiLU"}, "activation='SiLU': must be one of ReLU"),
        ({"activation": nn.SiLU(), "lipschitz": 2.0}, "activation='SiLU': must be monotone"),
        ({"activation": nn.ReLU6()}, "lipschitz=None: must be given for ReLU6"),
        ({"activation": nn.ReLU6(), "lipschitz": 0.5}, r"lipschitz=0\.5: must be at least the largest slope"),
        ({"method": "midpoint"}, "method='midpoint'"),
        ({"max_substeps": 0}, "max_substeps=0: must be null or at least 1"),
        ({"loss": "mse"}, "loss='mse': must be cross_entropy or hinge"),
        ({"loss": "hinge"}, r"margin=0\.0: must be finite and at least 0, above 0 for hinge"),
        ({"margin": -1.0}, r"margin=-1\.0"),
        ({"temperature": 0.0}, r"temperature=0\.0: must be from 1e-6 to 1e6"),
        ({"temperature": 1e-40}, "temperature=1e-40"),
        ({"temperature": 1e39}, r"temperature=1e\+39"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"radius": 0.0}, r"radius=0\.0: must be finite and above 0"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(settings, message):
    with pytest.raises(SettingError, match=f"^{message}") as caught:
        small(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("largest", [1, 2, 3])
def test_a_reloaded_network_is_the_same_function(largest):
    def network():
        shape = {"widths": [4], "depths": [1], "strides": [2], "dense_depth": 1, "dense_width": 16}
        return NonexpansiveNet(3, (1, 8, 8), max_substeps=largest, **shape).eval()

    trained, reloaded = network(), network()
    with torch.no_grad():
        for layer in trained.layers:
            if isinstance(layer, GradientFlow):  # an uneven spectrum, where quick norms are loose
                weight = layer.operator.weight
                weight.mul_(torch.linspace(0.1, 0.7, len(weight)).view(-1, *(1,) * (weight.dim() - 1)))
    trained.constrain_()
    reloaded.load_state_dict(trained.state_dict())
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(trained(images), reloaded(images))


@pytest.mark.parametrize(("span", "max_substeps"), [(2.0, 1), (4.0, 1), (6.0, 3), (2.0, None)])
def test_a_network_begins_with_no_more_substeps_than_it_may_take(span, max_substeps):
    # and not with a second half step from where A x is 0 but for rounding, the kink of ReLU
    assert {flow.count() for flow in flows(small(span=span, max_substeps=max_substeps))} == {
        max_substeps or 1
    }


def test_the_first_gradient_does_not_depend_on_how_a_batch_is_cut():
    model, (images, labels) = small(), batch(24)
    whole, halves = [], []
    for parts, gradients in ((1, whole), (2, halves)):
        model.zero_grad()
        for some, theirs in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            (model.margin_loss(model(some), theirs) / parts).backward()
        gradients += [parameter.grad.clone() for parameter in model.parameters()]
    for one, other in zip(whole, halves, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
