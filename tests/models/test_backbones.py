"""Backbones: frozen ones, and the files that they start from."""

import pytest
import torch
from nmode_models import fit, small
from refusals import refusal
from torch import nn

from lightning_attractors.errors import SettingError
from lightning_attractors.models import SANODE, ConvBackbone, ResNet18Features, count_nodes


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


@pytest.mark.parametrize(
    ("setting", "value"),
    [("in_channels", 0), ("channels", []), ("strides", [0, 1]), ("kernel_sizes", [3])],
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(SettingError, match=rf"{setting}="):
        ConvBackbone(**{setting: value})


def test_more_pixels_than_can_be_coupled_are_refused_with_sizes_and_a_remedy():
    message = refusal(SANODE, num_classes=12, image_shape=(3, 64, 64))
    assert message == (
        "image_shape=(3, 64, 64): each of 12,288 pixels would be a node, all of them coupled: "
        "151 million parameters, 0.6 GiB, and minutes before the first step; set a backbone and nodes, as "
        "model.backbone=ConvBackbone and model.nodes=100 (backbone=torch.nn.Flatten insists)"
    )
    assert count_nodes((1, 64, 64)) == 4096
    assert count_nodes((3, 64, 64), nodes=100) == 100
    assert count_nodes((3, 64, 64), nn.Flatten()) == 12288
