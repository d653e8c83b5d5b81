"""Own images in folders: their classes, their splits, in memory and streamed, and what is refused."""

import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import CLASSES, write_folder
from PIL import Image
from refusals import refusal
from torchvision.transforms import v2

from lightning_attractors.data import ImageFolderDataModule, pictures
from lightning_attractors.image_files import read_image

NAMES = ["blue jay", "cat", "Äpfel"]  # as sorted by torchvision too


@pytest.fixture(autouse=True)
def photos(empty_folder):
    write_folder("photos")


def ready(root="photos", image_size=10, batch_size=3, **settings):
    data = ImageFolderDataModule(root, image_size, batch_size=batch_size, **settings)
    data.prepare_data()
    data.setup()
    return data


def counts(data):
    return {name: torch.bincount(split.labels).tolist() for name, split in data.datasets.items()}


def test_classes_are_the_folders_and_splits_have_a_share_of_each():
    data = ready()
    assert (data.class_names, data.num_classes, data.image_shape) == (NAMES, 3, (3, 10, 10))
    assert counts(data) == {"train": [5] * 3, "val": [1] * 3, "test": [2] * 3}
    images = data.datasets["train"].images
    assert (images.dtype, images.shape) == (torch.uint8, (15, 3, 10, 10))
    for k, name in enumerate(CLASSES):  # the bright band says which class it is
        band = images[data.datasets["train"].labels == NAMES.index(name)].float().mean(dim=(0, 1, 3))
        assert band.argmax() // 4 == k


def test_the_splits_hold_every_file_once_and_depend_on_their_seed_alone():
    one, same, other = ready(), ready(seed=5), ready(split_seed=1)
    files = [one.datasets[split].files for split in ("train", "val", "test")]
    every = sorted(str(path) for path in Path("photos").rglob("*.*"))
    assert sorted([*files[0], *files[1], *files[2]]) == every
    assert same.datasets["test"].files == one.datasets["test"].files != other.datasets["test"].files
    first = Path(one.datasets["test"].files[0])
    assert first.parent.name == NAMES[one.datasets["test"].labels[0]]


def test_the_first_images_of_a_split_are_of_all_classes():
    write_folder("split/train")
    write_folder("split/test", count=3)
    assert ready("split").datasets["test"].labels.tolist() == [0, 1, 2] * 3
    assert sorted(ready().datasets["test"].labels[:3].tolist()) == [0, 1, 2]


def test_images_without_classes_are_predicted_in_place_of_the_test_images():
    write_folder("new", ["cat", "cat/more"], count=2)
    Path("new/readme.txt").write_text("hello")
    data = ready(predict_root="new", eval_batch_size=3)
    with pytest.warns(UserWarning, match=r"do not have the name of an image .*new/readme.txt is one"):
        loader = data.predict_dataloader()
    assert [tuple(batch.shape) for batch in loader] == [(3, 3, 10, 10), (1, 3, 10, 10)]
    assert loader.dataset.files == sorted(str(path) for path in Path("new").rglob("Bild*"))
    first = next(iter(loader))[0]
    assert torch.equal(first, read_image(loader.dataset.files[0], (3, 10, 10)) / 255)
    Path("none").mkdir()
    message = refusal(ready(predict_root="none").predict_dataloader)
    assert message.startswith("predict_root='none': must have images (.bmp, ")


def test_sizes_are_told_and_epochs_of_few_steps(caplog):
    with caplog.at_level("INFO"), pytest.warns(UserWarning, match="few steps") as caught:
        ready(batch_size=6)
    assert "3 classes of images: 15 to train on, 3 to validate on, 6 to test on" in caplog.text
    assert [str(warning.message) for warning in caught] == [
        "an epoch of 15 images in batches of 6 has few steps of training (3); data.batch_size=3 makes 5"
    ]


def test_split_folders_are_used_and_a_missing_one_is_taken_from_train():
    write_folder("split/train")
    write_folder("split/test", count=3)
    data = ready("split")
    assert counts(data) == {"train": [7] * 3, "val": [1] * 3, "test": [3] * 3}
    assert all("split/test" in path for path in data.datasets["test"].files)
    shutil.copytree("split/test", "split/val")
    assert counts(ready("split"))["train"] == [8] * 3


def test_streamed_images_are_those_in_memory():
    settings = {
        "batch_size": 4,
        "max_shift": 2,
        "transforms": [v2.RandomHorizontalFlip(), v2.RandomRotation(9)],
    }
    held, streamed = ready(**settings), ready(in_memory=False, num_workers=2, **settings)
    for name in ("train", "val", "test"):
        loaders = [_loader(data, name) for data in (held, streamed)]
        assert loaders[1].num_workers == 2
        for (images, labels), (others, their_labels) in zip(*loaders, strict=True):
            assert torch.equal(images, others)
            assert torch.equal(labels, their_labels)


def _loader(data, name):
    return {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[name]()


def test_images_are_held_in_memory_where_they_fit(monkeypatch):
    assert isinstance(ready().datasets["train"].images, torch.Tensor)
    monkeypatch.setattr(pictures, "physical_memory", lambda: 4 * 24 * 300 - 1)
    assert not isinstance(ready().datasets["train"].images, torch.Tensor)
    monkeypatch.setattr(pictures, "physical_memory", lambda: 4 * 24 * 300)
    assert isinstance(ready().datasets["train"].images, torch.Tensor)


def test_what_goes_to_a_worker_serves_the_present_epoch():
    data = ready(in_memory=False, noise_train=0, gaussian_noise=0.1)
    dataset = data.datasets["train"]
    dataset.epoch = lambda: 3  # cannot be pickled
    sent = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(sent[0][0], dataset[0][0])
    dataset.epoch = lambda: 4
    assert not torch.equal(sent[0][0], dataset[0][0])


def test_transforms_change_training_images_alone_and_leave_torchs_generator_alone():
    data = ready(transforms=[v2.RandomInvert(p=1.0)])
    clean = ready()
    before = torch.get_rng_state()
    image, _ = data.datasets["train"][0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(image, 1 - clean.datasets["train"][0][0])
    assert torch.equal(data.datasets["test"][0][0], clean.datasets["test"][0][0])
    assert data.datasets["train"].is_random


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (v2.Resize(5), "not of shape (3, 5, 5)"),
        (v2.Normalize([0.5] * 3, [0.5] * 3), "(Input tensor should be a float tensor"),
        (
            v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.1] * 3)]),
            "not from -4",
        ),
    ],
)
def test_transforms_that_give_no_images_are_refused(transform, said):
    message = refusal(ready, transforms=[transform])
    assert message.startswith(
        f"transforms=['{type(transform).__name__}']: must take images of bytes of shape"
    )
    assert said in message


def test_files_that_are_no_images_are_left_out_or_refused():
    Path("photos/cat/readme.txt").write_text("hello")
    Path("photos/cat/.hidden.png").write_text("hello")
    Path("photos/.cache").mkdir()
    with pytest.warns(
        UserWarning, match=r"^1 files do not have the name of an image .*cat/readme.txt is one"
    ):
        assert len(ready().datasets["train"].files) == 15
    Path("photos/cat/readme.txt").unlink()
    Path("photos/cat/broken.png").write_text("hello")
    expected = (
        "image='photos/cat/broken.png': must be an image that can be read (it is in no format of images)"
    )
    assert refusal(ready) == refusal(ready, in_memory=False) == expected


def test_modes_are_mixed_in_silence_but_for_what_is_lost():
    Image.fromarray(np.zeros((9, 9), np.uint8)).save("photos/cat/grey.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ready()
    Image.fromarray(np.zeros((9, 9, 4), np.uint8)).save("photos/cat/alpha.png")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save("photos/cat/deep.png")
    with warnings.catch_warnings(record=True) as caught:
        ready()
    assert sorted(str(warning.message) for warning in caught) == [
        "1 of 27 images have 16 bits, of which the upper 8 are kept: photos/cat/deep.png is one",
        "1 of 27 images have transparent parts, which count as white: photos/cat/alpha.png is one",
    ]


def test_folders_that_are_laid_out_otherwise_are_refused():
    Path("empty").mkdir()
    layout = "one folder of images for every class, or train and perhaps val and test with such folders"
    assert refusal(ready, "nowhere") == "root='nowhere': must be a folder that exists"
    assert refusal(ready, "empty") == f"root='empty': must hold {layout}; it has no folders"
    assert refusal(ready, "photos/cat") == f"root='photos/cat': must hold {layout}; it has no folders"
    write_folder("one", ["cat"])
    assert refusal(ready, "one") == "root='one': must have at least 2 classes; it has ['cat']"
    Path("photos/none").mkdir()
    message = refusal(ready)
    assert message.startswith("root='photos': must have images (.bmp, .jpeg")
    assert message.endswith("of every class; photos has none of ['none']")


def test_splits_with_other_classes_are_refused():
    write_folder("split/train")
    write_folder("split/test", CLASSES[:2])
    assert refusal(ready, "split") == "root='split': test must have the class 'cat' of train"
    write_folder("split/test", ["cat", "dog"])
    assert refusal(ready, "split") == "root='split': train must have the class 'dog' of test"
    Path("split/valid").mkdir()
    expected = "root='split': must have only val and test beside train; it has ['valid']"
    assert refusal(ready, "split") == expected


def test_classes_with_too_few_images_are_refused():
    write_folder("few", count=2)
    expected = "must leave every class an image to train on: class 'blue jay' has 2 of its own"
    assert refusal(ready, "few") == f"val_share, test_share=[0.1, 0.2]: {expected}"
    assert counts(ready("few", val_share=0))["train"] == [1] * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "image_size=0: must be at least 1"),
        ({"image_size": (4, 0)}, "image_size=(4, 0): must be at least 1"),
        ({"predict_root": "nowhere"}, "predict_root='nowhere': must be a folder that exists"),
        ({"predict_root": __file__}, f"predict_root='{__file__}': must be a folder, of images"),
        ({"channels": 2}, "channels=2: must be 1 for grey or 3 for colour"),
        ({"val_share": 1.0}, "val_share=1.0: must be at least 0 and below 1"),
        ({"test_share": 0.0}, "test_share=0.0: must be above 0 and below 1"),
        ({"val_share": 0.8}, "val_share=0.8: must leave images to train on beside test_share, 0.2"),
        ({"num_workers": -1}, "num_workers=-1: must be null or at least 0"),
        ({"split_seed": -1}, "split_seed=-1: must be at least 0"),
        (
            {"in_memory": False, "noise_test": 0.1},
            "noise_test=0.1: must be 0 for images that are not in memory: "
            "noise of validation and test is drawn once",
        ),
    ],
)
def test_bad_settings_are_named(settings, message):
    assert refusal(ready, **settings) == message
