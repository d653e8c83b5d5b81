"""KrotovHopfield and BackpropCNN: powers that stay finite, gradients for attacks, filters in files."""

import pytest
import torch
from activations import ACTIVATIONS
from torch.nn import functional

from lightning_attractors.errors import SettingError
from lightning_attractors.models import BackpropCNN, KrotovHopfield

SHAPE = (3, 12, 12)


def small(family=KrotovHopfield, **settings):
    return family(**{"image_shape": SHAPE, "grid": 3, "pool_size": 3, **settings})


def converge(model):
    """Give the filters the norm that learned ones have."""
    filters = model.filters
    filters.abs_().div_(filters.pow(model.p).sum(dim=(1, 2, 3), keepdim=True).pow(1 / model.p))


@pytest.mark.parametrize("power", [1, 4, 12])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_converged_filters_give_the_published_features(name, power):
    model = small(activation=name, power=power)
    converge(model)
    images = torch.rand(4, *SHAPE)
    features = ACTIVATIONS[name](model.pooled(images).double()).pow(power)
    expected = features.flatten(1) @ model.linear.weight.double().T + model.linear.bias.double()
    torch.testing.assert_close(model(images).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("family", [KrotovHopfield, BackpropCNN])
def test_powers_of_50_stay_finite(family, name, precision):
    model = small(family, activation=name, power=50, **({"p": 6.0} if family is KrotovHopfield else {}))
    images = torch.rand(4, *SHAPE).requires_grad_()
    images.data[0] = 0
    images.data[1] = 1
    if family is BackpropCNN:
        model.filters.data.mul_(50)
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        logits = model(images)
        loss = functional.cross_entropy(logits, torch.arange(4))
    loss.backward()
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert images.grad.isfinite().all()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert torch.nn.utils.get_total_norm(gradients).isfinite()


@pytest.mark.parametrize("family", [KrotovHopfield, BackpropCNN])
def test_attacks_reach_the_images(family):
    model = small(family, power=2).double()
    images = torch.rand(2, *SHAPE, dtype=torch.float64).add(0.1).requires_grad_()
    assert torch.autograd.gradcheck(model, images, fast_mode=True)
    (gradient,) = torch.autograd.grad(model(images).sum(), images)
    assert (gradient != 0).any(dim=(1, 2, 3)).all()


def test_a_twin_trains_what_the_other_freezes():
    names = dict(small(BackpropCNN).named_parameters())
    assert all(parameter.requires_grad for parameter in names.values())
    trained = [name for name, parameter in small().named_parameters() if parameter.requires_grad]
    assert trained == ["linear.weight", "linear.bias"]


def test_filters_are_saved_and_reused(tmp_path):
    path = tmp_path / "some" / "filters.pt"
    model = small()
    model.save_filters(path)
    other = small(filters_from=str(path), power=3)
    assert torch.equal(other.filters, model.filters)
    assert not other.filters.requires_grad
    assert "filters_from" not in other.hparams


def test_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "filters.pt"
    small().save_filters(path)
    with pytest.raises(SettingError, match=r"shape \(9, 3, 4, 4\), this model needs shape \(16, 3, 4, 4\)"):
        small(filters_from=str(path), grid=4)
    with pytest.raises(SettingError, match=r"learned with p=4\.0, this model has p=3\.0"):
        small(filters_from=str(path), p=3.0)
    with pytest.raises(SettingError, match="cannot be read"):
        small(filters_from=str(tmp_path / "nothing.pt"))
    for content in (path.read_bytes()[:-200], b"no filters", b""):
        path.write_bytes(content)
        with pytest.raises(SettingError, match="must be a file of save_filters, and whole"):
            small(filters_from=str(path))
    filters = small()
    filters.conv.weight[0, 0, 0, 0] = torch.nan
    filters.save_filters(path)
    with pytest.raises(SettingError, match="holds filters that are not finite"):
        small(filters_from=str(path))
    torch.save([1], path)
    with pytest.raises(SettingError, match="must be a file of save_filters, and whole"):
        small(filters_from=str(path))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("m", 10), ("m", 1), ("p", 1.5), ("delta", -0.1), ("ranking", "size"), ("filter_lr", 0)),
        *(("kernel_size", 13), ("kernel_size", 0), ("pool_size", 10), ("pool_size", 0), ("pool_stride", 0)),
        *(("power", 0), ("activation", "tanh"), ("grid", 0), ("seed", -1)),
        *(("schedule", "sine"), ("gamma", 0), ("tau", -1), ("step", 0)),
    ],
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(SettingError, match=f"^{setting}=") as caught:
        small(**{setting: value})
    assert "\n" not in str(caught.value)
