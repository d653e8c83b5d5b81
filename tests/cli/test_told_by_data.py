"""Own images and data modules of others, from the command line."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from command_line import RUN, checkpoint, refused_before_training, run
from image_folders import write_folder

MODEL = ["--model", "SANODE", "--model.steps", 2, "--model.coupling", "projected"]
TRAINER = ["--trainer.accelerator", "cpu", "--trainer.max_epochs", 1, "--trainer.logger.name", "test"]


def theirs(**settings):
    words = [word for name, value in settings.items() for word in (f"--data.{name}", value)]
    return [*MODEL, "--data", "strangers.Tensors", *words, *TRAINER]


def test_own_images_are_trained_certified_drawn_and_predicted():
    write_folder("photos")
    Path("photos.yaml").write_text("""
model:
  class_path: SANODE
  init_args:
    backbone:
      class_path: ConvBackbone
      init_args: {in_channels: 3, channels: [2], kernel_sizes: [4], strides: [4]}
    nodes: 12
    steps: 3
data:
  class_path: ImageFolderDataModule
  init_args:
    root: photos
    image_size: [16, 12]
    transforms: [{class_path: torchvision.transforms.v2.RandomRotation, init_args: {degrees: 10}}]
trainer:
  callbacks: [{class_path: StabilityCertificate}, {class_path: AttractorPictures}]
""")
    settings = ["--config", "photos.yaml", *TRAINER]
    run("fit", *settings)
    saved = yaml.safe_load((RUN / "config.yaml").read_text())
    assert saved["data"]["init_args"]["transforms"][0]["init_args"]["degrees"] == 10
    assert json.loads((RUN / "stability.json").read_text())["equilibria"] == 3
    assert (RUN / "figures/strip.png").is_file()
    run("predict", *settings, "--ckpt_path", "last")
    predictions = RUN / "predict/predictions.csv"
    assert len(list(csv.DictReader(predictions.open()))) == 6


def test_shape_and_classes_are_taken_from_the_first_batch():
    with pytest.warns(UserWarning, match="Tensors does not say num_classes: the first batch has 3"):
        run("fit", *theirs())
    assert checkpoint()["hyper_parameters"]["image_shape"] == (1, 6, 5)
    assert checkpoint()["state_dict"]["attractors"].shape == (3, 30)


def test_classes_are_those_of_the_training_set_where_it_says_them():
    run("fit", *theirs(classes=4, named="true"))
    assert checkpoint()["state_dict"]["attractors"].shape == (4, 30)


def test_what_is_set_is_not_looked_for():
    run("fit", *theirs(), "--model.num_classes", 7)
    assert checkpoint()["state_dict"]["attractors"].shape == (7, 30)


def test_the_look_at_the_data_leaves_random_numbers_as_they_are():
    run("fit", *theirs(shuffled="true"), "--model.num_classes", 3, "--model.image_shape", "[1,6,5]")
    expected = checkpoint()["state_dict"]
    run("fit", *theirs(shuffled="true"))
    found = torch.load("runs/test/version_1/checkpoints/last.ckpt", weights_only=False)["state_dict"]
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "dicts"}, "error: unpack_batch=None: must be a callable that takes batches of"),
        ({"kind": "flat"}, "error: images of shape=(30,): must be (1, 28, 28), as the model's image_shape"),
        ({"kind": "bytes"}, "error: images='torch.uint8': must be torch.float32 in [0, 1]; of bytes"),
        ({"size": 65}, "error: image_shape=(1, 65, 64): each of 4,160 pixels would be a node, all of them"),
    ],
)
def test_what_does_not_fit_is_one_line_before_training(settings, message):
    assert refused_before_training(*theirs(**settings)).startswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "error: data.image_size: must be given"),
        (["--data.image_size", 8], "error: root='nowhere': must be a folder that exists"),
        (["--data.image_size", "large"], "error: data.image_size='large': must be"),
        (["--data.image_size", 8, "--data.channels", 4], "error: data.channels='4': must be"),
    ],
)
def test_own_images_that_cannot_be_had_are_one_line(settings, message):
    data = ["--data", "ImageFolderDataModule", "--data.root", "nowhere", *settings]
    assert refused_before_training(*MODEL, *data, *TRAINER).startswith(message)
