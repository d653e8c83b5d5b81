"""The data module made of glyphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_attractors.data import LettersDataModule
from lightning_attractors.data.glyphs import glyph_images
from lightning_attractors.errors import SettingError


def test_shapes_and_names_are_known_before_setup() -> None:
    data = LettersDataModule(letters="XYZ")
    assert data.num_classes == 3
    assert data.image_shape == (1, 7, 7)
    assert data.class_names == ["X", "Y", "Z"]


@pytest.mark.parametrize("letters", ["QAZ", ["Q", "A", "Z"]])
def test_class_k_is_the_kth_letter(letters: list[str] | str) -> None:
    data = LettersDataModule(letters, n_train=7, n_val=3, n_test=5, noise_train=0, noise_test=0)
    data.setup()
    assert [len(data.datasets[split]) for split in ("train", "val", "test")] == [7, 3, 5]
    images, labels = next(iter(data.test_dataloader()))
    assert labels.tolist() == [0, 1, 2, 0, 1]
    assert torch.equal(images, glyph_images("QAZQA").float() / 255)
    assert set(images.unique().tolist()) == {0, 1}


def test_noise_levels_of_the_splits() -> None:
    data = LettersDataModule("AB", n_train=40, n_val=20, n_test=20, noise_train=0.2, noise_test=0.4)
    data.setup()
    clean = glyph_images("AB").float() / 255
    for split, count in (("train", 10), ("val", 10), ("test", 20)):
        images, labels = data.datasets[split].__getitems__(range(20))
        changed = (images != clean[labels]).sum(dim=(1, 2, 3))
        assert (changed == count).all(), split
        assert len({tuple(image.flatten().tolist()) for image in images}) == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"letters": ""}, "letters='': must name at least one letter of A-Z"),
        ({"letters": "AbC1"}, "letters='AbC1': must be letters of A-Z; unknown: b, 1"),
        ({"letters": ["A", "BC"]}, "letters=['A', 'BC']: must be letters of A-Z; unknown: BC"),
        ({"letters": "ABACB"}, "letters='ABACB': must be distinct; repeated: A, B"),
        ({"n_train": 0}, "n_train=0: must be at least 1"),
        ({"n_val": 0}, "n_val=0: must be at least 1"),
        ({"n_test": -1}, "n_test=-1: must be at least 1"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"eval_batch_size": 0}, "eval_batch_size=0: must be at least 1"),
        ({"noise_train": 1.5}, "noise_train=1.5: must be from 0 to 1"),
        ({"noise_test": -0.1}, "noise_test=-0.1: must be from 0 to 1"),
        ({"noise_test": float("nan")}, "noise_test=nan: must be from 0 to 1"),
        ({"seed": -1}, "seed=-1: must be at least 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        LettersDataModule(**settings)
    assert str(caught.value) == message
