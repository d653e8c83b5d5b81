"""Batches that no model can take are refused in a line that says what they are."""

import pytest
import torch
from refusals import refusal

from lightning_attractors.models import NMODE, SANODE, BackpropCNN, KrotovHopfield, NonexpansiveNet

IMAGES, LABELS = torch.rand(4, 1, 28, 28), torch.arange(4)


@pytest.mark.parametrize("family", [SANODE, NMODE, BackpropCNN, KrotovHopfield, NonexpansiveNet])
def test_images_of_another_shape_are_refused_by_every_family(family):
    model = family(num_classes=10, image_shape=(1, 28, 28))
    batch = torch.rand(4, 3, 20, 28), LABELS
    expected = "images of shape=(3, 20, 28): must be (1, 28, 28), as the model's image_shape"
    for step in (model.training_step, model.validation_step, model.test_step, model.predict_step):
        assert refusal(step, batch, 0) == expected


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": IMAGES}, "batch='dict': must be images and labels, two tensors"),
        ([IMAGES, LABELS, LABELS], "batch='list of Tensor, Tensor, Tensor': must be images and labels"),
        (IMAGES, "batch='Tensor': must be images and labels, two tensors"),
        ((255 * IMAGES).byte(), "batch='Tensor': must be images and labels, two tensors"),
        (((255 * IMAGES).byte(), LABELS), "images='torch.uint8': must be torch.float32 in [0, 1]; of bytes"),
        ((IMAGES.double(), LABELS), "images='torch.float64': must be torch.float32 in [0, 1]"),
        ((IMAGES, LABELS[:3]), "labels=(3,): must be one class for each image, of shape (4,)"),
        ((IMAGES, torch.eye(4)), "labels=(4, 4): must be one class for each image, of shape (4,)"),
        ((IMAGES, LABELS.float()), "labels='torch.float32': must be classes, as torch.int64"),
    ],
)
def test_a_batch_of_another_kind_is_named(batch, message):
    assert refusal(NMODE().validation_step, batch, 0).startswith(message)


def test_labels_may_be_any_integers():
    _, labels = NMODE().evaluation_batch((IMAGES, LABELS.to(torch.uint8)))
    assert labels.dtype == torch.int64
