"""Attractor models behind a backbone: features or their embedding as initial states, and what is refused."""

import copy
import math

import pytest
import torch
from torch import nn
from trainers import quiet_trainer

from lightning_attractors.callbacks import AttractorPictures, StabilityCertificate
from lightning_attractors.certificates import lipschitz_bounds
from lightning_attractors.dynamics.integrate import euler, integrate
from lightning_attractors.dynamics.planted import block_patterns
from lightning_attractors.errors import SettingError
from lightning_attractors.models import (
    CVFR,
    NMODE,
    SANODE,
    AttractorClassifier,
    ConvBackbone,
    NonexpansiveStages,
    count_nodes,
)

SHAPE = (1, 8, 8)
FAMILIES = pytest.mark.parametrize("family", [SANODE, CVFR])
STAGES = {"image_shape": SHAPE, "widths": [4, 6], "depths": [1, 1], "strides": [2, 1], "dense_depth": 1}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def head(family, **settings):
    return family(num_classes=3, image_shape=SHAPE, **{"steps": 4, "coupling": "projected", **settings})


def conv():
    return ConvBackbone(1, channels=[4], kernel_sizes=[4], strides=[2])


def loader(count=24):
    data = torch.utils.data.TensorDataset(torch.rand(count, *SHAPE), torch.arange(count) % 3)
    return torch.utils.data.DataLoader(data, batch_size=8)


def fit(model, path, callbacks=(), **settings):
    trainer = quiet_trainer(path, [*callbacks], **{"max_epochs": 2, **settings})
    trainer.fit(model, loader(), loader())
    return trainer


class Wells(AttractorClassifier):
    """ẋ = x − x³: a family of a user's own, with wells at ±1 and no coupling."""

    def __init__(self, num_nodes, **settings):
        patterns = block_patterns(3, num_nodes, low=-1.0, high=1.0)
        super().__init__(patterns, SHAPE, 0.25, 4, None, "euler", {}, **settings)

    def field(self):
        return lambda x: x - x**3


@FAMILIES
def test_a_backbone_that_flattens_changes_nothing(family):
    plain = head(family).double()
    behind = head(family, backbone=nn.Flatten()).double()
    behind.load_state_dict(plain.state_dict())
    images = torch.rand(4, *SHAPE, dtype=torch.float64)
    assert torch.equal(behind(images), plain(images))


@FAMILIES
@pytest.mark.parametrize("nodes", [None, 20])
def test_features_or_their_embedding_are_the_initial_state(family, nodes):
    model = head(family, backbone=conv(), nodes=nodes).double().eval()
    images = torch.rand(4, *SHAPE, dtype=torch.float64)
    start = model.backbone(images).flatten(1)
    assert start.shape == (4, 64)
    if nodes:
        start = nn.functional.linear(start, model.embedding.weight, model.embedding.bias)
    assert model.equilibria().shape == (3, nodes or 64)
    expected = integrate(model.vector_field, start, model.dt, 4, euler)
    torch.testing.assert_close(model.final_state(images), expected)
    assert torch.equal(next(iter(model.states(images))), start)
    assert torch.autograd.gradcheck(model, images[:2].requires_grad_(), fast_mode=True)


@FAMILIES
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_part_is_trained_each_by_its_own_optimiser(family, precision, tmp_path):
    groups = {
        "backbone": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        "embedding": lambda parameters: torch.optim.SGD(parameters, lr=0.0),
    }
    model = head(family, backbone=conv(), nodes=20, optimizers=groups)
    before = copy.deepcopy(model.state_dict())
    certificate = StabilityCertificate()
    fit(model, tmp_path, [certificate, AttractorPictures(every_n_epochs=1)], precision=precision)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert {"backbone.0.weight", "backbone.0.bias"} <= moved
    assert any(name.startswith("coupling") for name in moved)
    assert not any(name.startswith("embedding") for name in moved)
    assert len(certificate.certificates) == 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.final_state(torch.rand(2, *SHAPE)).dtype == torch.float32


@pytest.mark.parametrize("settings", [{"backbone": conv()}, {"nodes": 20}, {"backbone": conv(), "nodes": 20}])
def test_a_family_of_ones_own_passes_both_on(settings, tmp_path):
    nodes = count_nodes(SHAPE, **settings)
    assert nodes == settings.get("nodes", 64)
    fit(Wells(nodes, **settings), tmp_path, [StabilityCertificate(on_violation="raise")])
    with pytest.raises(SettingError, match=rf"^attractors='30 nodes': must have {nodes}, as initial states"):
        Wells(30, **settings)


@FAMILIES
def test_a_checkpoint_of_another_backbone_is_refused(family, tmp_path):
    class Negative(nn.Flatten):
        def forward(self, images):
            return 1 - super().forward(images)

    model, path = head(family, backbone=Negative()), tmp_path / "model.ckpt"
    fit(model, tmp_path, max_epochs=1).save_checkpoint(path)
    with pytest.raises(SettingError, match=r"^backbone='Flatten': must be the checkpoint's own, Negative$"):
        family.load_from_checkpoint(path)
    again = family.load_from_checkpoint(path, backbone=Negative()).eval()
    images = torch.rand(2, *SHAPE)
    assert torch.equal(again(images), model.eval()(images))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
@pytest.mark.parametrize("family", [SANODE, CVFR, NMODE])
def test_a_nonexpansive_backbone_stays_one_in_any_model(family, precision, tmp_path):
    stages = NonexpansiveStages(**STAGES, outputs=20)
    settings = {"width": 16} if family is NMODE else {"steps": 4, "coupling": "projected"}
    model = family(num_classes=3, image_shape=SHAPE, backbone=stages, **settings)
    model.optimizer_factory = lambda parameters: torch.optim.Adam(parameters, lr=0.1)
    norms, start = [], copy.deepcopy(stages.state_dict())
    operators = [layer.operator for layer in stages if hasattr(layer, "operator")]
    model.on_before_zero_grad = lambda _: norms.append([operator.norm_bound() for operator in operators])
    fit(model, tmp_path, precision=precision)
    assert len(operators) == 6
    # after every step: without retraction they would be far above
    assert len(norms) == 6
    assert max(map(max, norms[1:])) <= 1
    assert all((value != start[name]).any() for name, value in stages.named_parameters())
    assert math.prod(lipschitz_bounds(stages).values()) <= 1 + 1e-7
    x, y = torch.rand(2, 200, *SHAPE, dtype=torch.float64)
    y[:100] = x[:100] + 1e-3 * torch.randn(100, *SHAPE)
    stages = stages.double()
    moved = (stages(x) - stages(y)).norm(dim=1) / (x - y).flatten(1).norm(dim=1)
    assert 0.01 < moved.max() <= 1


def test_nonexpansive_stages_have_as_many_features_as_they_say():
    images = torch.rand(3, *SHAPE)
    for settings, count in (({}, 96), ({"pool": 2}, 24), ({"outputs": 40}, 40)):
        stages = NonexpansiveStages(**STAGES, **settings)
        assert stages(images).shape == (3, count)
        assert stages.num_features == count


@FAMILIES
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodes": 0}, "nodes=0: must be null or at least 1"),
        ({"nodes": 10**8}, "nodes=100000000: must be smaller: it needs"),
        ({"nodes": 2}, "num_classes=3: must"),
        ({"backbone": nn.AdaptiveAvgPool2d(1)}, "num_classes=3: must"),
        (
            {"backbone": ConvBackbone(3)},
            r"model\.backbone='ConvBackbone': must accept images of shape \(1, 8",
        ),
        ({"backbone": nn.Flatten(0)}, r"model\.backbone='Flatten': must give one tensor"),
        ({"backbone": nn.Conv2d(1, 2, 9)}, r"model\.backbone='Conv2d': must accept"),
    ],
)
def test_what_cannot_be_a_head_is_refused(family, settings, message):
    with pytest.raises(SettingError, match=f"^{message}") as caught:
        head(family, **settings)
    assert "\n" not in str(caught.value)


@FAMILIES
@pytest.mark.parametrize("nodes", [None, 20])
def test_images_with_another_number_of_features_are_refused(family, nodes):
    with pytest.raises(SettingError, match=r"^image_shape=\(1, 10, 10\): this model takes 64 features"):
        head(family, backbone=conv(), nodes=nodes)(torch.rand(2, 1, 10, 10))


@pytest.mark.parametrize("settings", [{"backbone": nn.Flatten()}, {"nodes": 20}])
def test_pictures_are_no_patterns_where_nodes_are_no_pixels(settings):
    with pytest.raises(SettingError, match=r"^patterns='3 files': must be random, blocks or a tensor"):
        head(CVFR, patterns=["a.png", "b.png", "c.png"], **settings)


def test_a_pattern_has_an_entry_per_node():
    patterns = torch.eye(3, 20)
    model = head(CVFR, backbone=conv(), nodes=20, patterns=patterns)
    assert torch.equal(model.equilibria() > 0, patterns > 0)
    with pytest.raises(SettingError, match=r"^patterns='20 nodes': must have 64, as the model has"):
        head(CVFR, backbone=conv(), patterns=patterns)
