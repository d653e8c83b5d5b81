"""What ``--help`` says of settings that a class passes on to its base: as much as of its own."""

import re

import pytest
from command_line import run

WITH_ADAM = ["SANODE", "CVFR", "NMODE", "NonexpansiveNet"]
WITH_ADAMW = ["KrotovHopfield", "BackpropCNN"]
OPTIMIZATION = {
    "optimizer": ("makes the optimiser", "default: {'class_path': 'torch.optim.Adam'}"),
    "optimizers": ("optimisers of parameters whose name starts with the key", "default: null"),
    "lr_scheduler": ("makes the learning-rate scheduler from the optimiser", "default: null"),
    "lr_interval": ("whether the scheduler steps once per optimizer", "default: epoch"),
}
IMAGES = {
    "batch_size": ("training images per batch", "default: 250"),
    "eval_batch_size": ("validation, test or prediction images per batch", "default: 1000"),
    "noise_train": ("fraction of pixels replaced by U(0, 1)", "default: 0.0"),
    "noise_test": ("the same for test images", "default: 0.0"),
    "max_shift": ("training images are shifted by up to this many pixels", "default: 0"),
    "flip": ("whether training images are mirrored", "default: False"),
    "seed": ("seed of noise, shifts, flips and training order", "default: 0"),
}


def described(capsys, part, kind):
    """What the help says of every setting of a class, by its name."""
    with pytest.raises(SystemExit):
        run("fit", f"--{part}.help", kind)
    text = " ".join(capsys.readouterr().out.split())
    return dict(setting.split(" ", 1) for setting in text.split(f" --{part}.")[1:])


@pytest.mark.parametrize(
    "kind", ["SANODE", "CVFR", "NMODE", "NonexpansiveNet", "KrotovHopfield", "BackpropCNN"]
)
def test_models_describe_the_settings_of_their_optimisation(kind, capsys):
    found = described(capsys, "model", kind)
    for name, (text, default) in OPTIMIZATION.items():
        assert text in found[name]
        assert (default.replace("Adam", "AdamW") if kind in WITH_ADAMW else default) in found[name]
    assert not {"attractors", "closeness", "bound", "num_realisations", "optimization"} & found.keys()


@pytest.mark.parametrize("kind", ["MNISTDataModule", "FashionMNISTDataModule", "CIFAR10DataModule"])
def test_data_modules_describe_the_settings_of_their_images(kind, capsys):
    found = described(capsys, "data", kind)
    for name, (text, default) in IMAGES.items():
        assert text in found[name]
        assert default in found[name]
    assert "images" not in found


def test_of_very_many_classes_a_setting_names_our_own(capsys):
    found = described(capsys, "model", "SANODE")
    assert "lightning_attractors.models.ConvBackbone" in found["backbone"]
    assert "torch.nn.ReLU" not in found["backbone"]
    assert re.search(r", and \d{3} others\)", found["backbone"])
    assert "torch.optim.Adam" in found["optimizer"]
