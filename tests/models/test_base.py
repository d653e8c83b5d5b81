"""What all families do with batches: refuse those that cannot be right, and measure the others again."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from lightning_attractors.errors import NonFiniteError, SettingError
from lightning_attractors.models import CVFR, NMODE, SANODE, BackpropCNN, KrotovHopfield, NonexpansiveNet

SHAPE = (1, 7, 7)
CNN = {"grid": 2, "pool_size": 2}
FAMILIES = {
    "SANODE": lambda: SANODE(3, SHAPE, coupling="projected", steps=2),
    "CVFR": lambda: CVFR(3, SHAPE, coupling="projected", steps=2),
    "KrotovHopfield": lambda: KrotovHopfield(3, SHAPE, **CNN),
    "BackpropCNN": lambda: BackpropCNN(3, SHAPE, **CNN),
    "NMODE": lambda: NMODE(3, SHAPE, width=8),
    "NonexpansiveNet": lambda: NonexpansiveNet(3, SHAPE, widths=[4], depths=[1], strides=[1]),
}
pytestmark = pytest.mark.filterwarnings("ignore:Encountered `nan` values")


@pytest.fixture(params=FAMILIES)
def model(request):
    return FAMILIES[request.param]()


def batches(pixel=0.5, label=0, size=4):
    """Eight images in two batches, of which the last one is as it is given."""
    images, labels = torch.rand(8, *SHAPE), torch.arange(8) % 3
    images[-1, 0, 0, 0], labels[-1] = pixel, label
    return DataLoader(TensorDataset(images, labels), batch_size=size)


def one_line(call, error, *arguments, **settings):
    with pytest.raises(error) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_evaluated_model_can_be_trained(tmp_path, model):
    quiet_trainer(tmp_path, []).validate(model, batches(), verbose=False)
    trainer = quiet_trainer(tmp_path, [], max_epochs=1, num_sanity_val_steps=0)
    trainer.fit(model, batches(), batches())
    first = trainer.callback_metrics["val/accuracy"]
    (found,) = quiet_trainer(tmp_path, []).validate(model, batches(), verbose=False)
    assert 0 <= first <= 1
    assert found.keys() == {name for name in trainer.callback_metrics if name.startswith("val/")}


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_images_that_are_not_finite_are_refused(tmp_path, model, stage):
    evaluate = getattr(quiet_trainer(tmp_path, []), stage)
    message = one_line(evaluate, SettingError, model, batches(pixel=math.nan))
    assert "images=" in message


@pytest.mark.parametrize("label", [-1, 3, 99])
def test_labels_that_are_no_classes_are_refused(tmp_path, model, label):
    for size in (4, 8):  # in a later batch, and in the first one
        trainer = quiet_trainer(tmp_path, [], max_epochs=1)
        message = one_line(trainer.fit, SettingError, model, batches(label=label, size=size))
        assert message.startswith("train labels=[")
        assert "must be classes from 0 to 2" in message
    for stage in ("validate", "test"):
        evaluate = getattr(quiet_trainer(tmp_path, []), stage)
        assert "labels=[" in one_line(evaluate, SettingError, model, batches(label=label))


def test_images_outside_the_unit_range_are_noticed(tmp_path):
    with pytest.warns(UserWarning, match="val images range from 0.*to 3: models take them in"):
        quiet_trainer(tmp_path, []).validate(FAMILIES["SANODE"](), batches(pixel=3.0), verbose=False)


def test_logits_that_are_not_finite_are_refused_and_weights_named(tmp_path):
    model = FAMILIES["BackpropCNN"]()
    with torch.no_grad():
        model.linear.weight[0, 0] = math.nan
    message = one_line(quiet_trainer(tmp_path, []).test, NonFiniteError, model, batches())
    assert "linear.weight is not finite: load other weights" in message


@pytest.mark.parametrize("strategy", [FSDPStrategy, ModelParallelStrategy])
def test_strategies_that_shard_matrices_are_refused(model, strategy):
    model.trainer = SimpleNamespace(precision="32-true", strategy=strategy())
    with pytest.raises(SettingError, match=f"strategy='{strategy.__name__}': must be one as ddp: attractors"):
        model.setup("fit")


def test_a_checkpoint_that_is_not_finite_is_refused(tmp_path):
    model = FAMILIES["NMODE"]()
    trainer = quiet_trainer(tmp_path, [], max_epochs=1)
    trainer.fit(model, batches())
    with torch.no_grad():
        model.head.bias[0] = math.inf
    trainer.save_checkpoint(tmp_path / "bad.ckpt")
    test = quiet_trainer(tmp_path, []).test
    message = one_line(
        test, SettingError, model, batches(), ckpt_path=tmp_path / "bad.ckpt", weights_only=False
    )
    assert "ckpt_path='a checkpoint whose head.bias is not finite'" in message


@pytest.mark.parametrize("setting", ["a", "gamma", "dt"])
def test_infinite_settings_are_named(setting):
    message = one_line(SANODE, SettingError, 3, SHAPE, **{setting: math.inf})
    assert message == f"{setting}=inf: must be finite and above 0"
