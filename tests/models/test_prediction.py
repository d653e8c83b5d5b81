import numpy as np
import pytest
import torch
from PIL import Image

from lightning_attractors.data import LettersDataModule
from lightning_attractors.errors import SettingError
from lightning_attractors.models import CVFR, NMODE, SANODE


def letters(names=("A", "B", "C"), **settings):
    """A model with planted letters' classes, which has a name for each."""
    torch.manual_seed(0)
    model = SANODE(num_classes=3, image_shape=(1, 7, 7), steps=5, **settings)
    model.class_names = list(names)
    return model


def image_file(folder, model, label, size=70):
    """A coloured image of the model's attractor of a class, larger than the model takes it."""
    pixels = model.equilibria()[label].view(7, 7)
    grey = ((pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255).byte().numpy()
    picture = Image.fromarray(np.stack([grey] * 3, axis=2)).resize((size, size), Image.Resampling.NEAREST)
    picture.save(folder / "digit.png")
    return folder / "digit.png"


def test_an_image_in_a_file_is_predicted_as_the_same_image_in_a_batch(tmp_path):
    model = letters()
    path = image_file(tmp_path, model, 2, size=7)
    pixels = torch.from_numpy(np.array(Image.open(path).convert("L"))).view(1, 1, 7, 7) / 255
    expected = model.eval()(pixels).detach().double().softmax(dim=1)
    model.train()
    found = model.predict_image(str(path))
    assert found.label == int(expected.argmax())
    assert found.class_name == "ABC"[found.label]
    assert found.confidence == pytest.approx(float(expected.max()), abs=1e-4)
    assert found.norm == "l2"
    assert found.certified_radius >= 0
    assert model.training
    assert model.predict_image(image_file(tmp_path, model, 2, size=70)).label == found.label


def test_without_a_certificate_or_names_there_are_none(tmp_path):
    torch.manual_seed(0)
    model = CVFR(num_classes=3, image_shape=(1, 7, 7), steps=3, sigma=0.2)
    found = model.predict_image(image_file(tmp_path, letters(), 1))
    assert (found.certified_radius, found.norm) == (None, None)
    assert found.class_name == str(found.label)


def test_certified_radii_are_those_of_the_model(tmp_path):
    torch.manual_seed(0)
    model = NMODE(num_classes=3, image_shape=(1, 7, 7), width=12).eval()
    path = image_file(tmp_path, letters(), 1, size=7)
    image = torch.from_numpy(np.array(Image.open(path).convert("L"))).view(1, 1, 7, 7) / 255
    label = model(image).argmax(dim=1)
    found = model.predict_image(path)
    assert found.certified_radius == pytest.approx(float(model.certified_radii(image, label)), rel=1e-3)
    assert found.certified_radius > 0


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "note.png").write_text("no image")
    with pytest.raises(SettingError, match=r"note\.png': must be an image that can be read"):
        letters().predict_image(tmp_path / "note.png")


def test_checkpoints_keep_the_names_of_the_classes():
    checkpoint = {"state_dict": letters().state_dict()}
    letters().on_save_checkpoint(checkpoint)
    other = letters(names=())
    other.on_load_checkpoint(checkpoint)
    assert other.class_names == ["A", "B", "C"]
    del checkpoint["class_names"]  # of a version before
    other.on_load_checkpoint(checkpoint)
    assert other.class_names == ["A", "B", "C"]
    assert LettersDataModule(letters="XYZ").class_names == ["X", "Y", "Z"]
