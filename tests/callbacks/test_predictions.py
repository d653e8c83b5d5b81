import csv
import math
import time

import pytest
import torch
from processes import on_processes
from robustness_runs import COUNT, Bright, Certified, loader, pictures
from torch.utils.data import DataLoader, Subset, TensorDataset
from trainers import quiet_trainer

from lightning_attractors.callbacks import Predictions
from lightning_attractors.contracts import files_of
from lightning_attractors.data import LettersDataModule
from lightning_attractors.errors import SettingError
from lightning_attractors.models import NMODE


class Named(Certified):
    class_names = ("dark", "bright")

    def predict_step(self, batch, batch_idx):
        return self(batch[0])


class Filed(TensorDataset):
    files = tuple(f"image {k}.png" for k in range(COUNT))


def predicted(path, module, data, **settings):
    trainer = quiet_trainer(path, [Predictions(**settings)])
    trainer.predict(module, data)
    with open(path / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_has_its_file_classes_confidence_and_radius(tmp_path, capsys):
    images, labels = pictures()
    found = predicted(tmp_path, Named(), DataLoader(Filed(images, labels), batch_size=7))
    logits = Bright().eval()(images)
    confidence, classes = logits.softmax(dim=1).max(dim=1)
    assert [row["file"] for row in found] == list(Filed.files)
    assert [int(row["class"]) for row in found] == classes.tolist()
    assert [row["class_name"] for row in found] == [Named.class_names[k] for k in classes]
    assert [int(row["label"]) for row in found] == labels.tolist()
    assert [row["label_name"] for row in found] == [Named.class_names[k] for k in labels]
    assert [float(row["confidence"]) for row in found] == pytest.approx(confidence.tolist())
    radii = Certified().certified_radii(images, classes)
    assert [float(row["certified_radius"]) for row in found] == pytest.approx(radii.tolist())
    assert "40 predictions are in" in (told := capsys.readouterr().out)
    assert told.strip().endswith("certified radii are in L∞")


def test_columns_that_would_be_empty_are_left_out(tmp_path):
    class Plain(Bright):
        def predict_step(self, batch, batch_idx):
            return self(batch)

    found = predicted(tmp_path, Plain(), DataLoader(pictures()[0], batch_size=7))
    assert list(found[0]) == ["index", "class", "confidence"]


def test_radii_take_no_longer_than_they_may(tmp_path, capsys):
    class Slow(Named):
        def certified_radii(self, images, labels):
            time.sleep(0.02 * len(images))
            return super().certified_radii(images, labels)

    started = time.monotonic()
    found = predicted(tmp_path, Slow(), loader(), seconds=0.2)
    assert time.monotonic() - started < 0.02 * COUNT
    have = [row["certified_radius"] != "" for row in found]
    assert 0 < sum(have) < COUNT
    assert have == sorted(have, reverse=True)
    told = capsys.readouterr().out
    assert f"certified radii are in L∞ of {sum(have)} of {COUNT} images, for lack of time" in told


def test_a_certificate_that_is_refused_says_why(tmp_path, capsys):
    class Refused(Named):
        def certified_radii(self, images, labels):
            raise SettingError("sigma", 0.3, "must be 0")

    assert "certified_radius" not in predicted(tmp_path, Refused(), loader())[0]
    assert "no certified radii: sigma=0.3: must be 0" in capsys.readouterr().out


def table(folder, count, images):
    """The rows that so many processes write of so many images."""
    torch.manual_seed(0)
    model = NMODE(5, (1, 7, 7), width=4)
    strategy = "ddp" if count > 1 else "auto"
    trainer = quiet_trainer(folder, [Predictions()], devices=count, strategy=strategy)
    trainer.predict(model, LettersDataModule(n_test=images, eval_batch_size=2))
    return (folder / "predictions.csv").read_text().splitlines()[1:]


@pytest.mark.parametrize("images", [2, 7])
def test_three_processes_write_the_rows_of_one(images, tmp_path):
    whole = [row.split(",") for row in table(tmp_path, 1, images)]
    shared = [row.split(",") for row in on_processes(3, lambda: table(tmp_path, 3, images), tmp_path)[0]]
    assert [row[:3] for row in shared] == [row[:3] for row in whole]
    assert [int(row[0]) for row in shared] == list(range(images))


def test_files_are_those_of_the_images_as_they_are_served():
    data = TensorDataset(torch.zeros(4))
    data.samples = [(name, 0) for name in "abcd"]  # as torchvision's ImageFolder
    assert files_of(DataLoader(data)) == list("abcd")
    assert files_of(DataLoader(Subset(data, [2, 0]))) == ["c", "a"]
    assert files_of(DataLoader(data, shuffle=True)) is None
    assert files_of(loader()) is None


@pytest.mark.parametrize("seconds", [-1.0, math.nan])
def test_time_is_at_least_none(seconds):
    with pytest.raises(SettingError, match="seconds="):
        Predictions(seconds)
