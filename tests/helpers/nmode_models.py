"""A small NMODE for images (1, 6, 6), 3 classes, and how to train it."""

import torch
from trainers import quiet_trainer

from lightning_attractors.models import NMODE

SHAPE = (1, 6, 6)


def small(**settings):
    return NMODE(**{"num_classes": 3, "image_shape": SHAPE, "width": 12, **settings})


def batch(count=8):
    return torch.rand(count, *SHAPE), torch.arange(count) % 3


def loader(count=24):
    images, labels = batch(count)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=8)


def fit(model, path, data=None, callbacks=(), **settings):
    trainer = quiet_trainer(path, [*callbacks], **{"max_epochs": 1, **settings})
    trainer.fit(model, loader() if data is None else data)
    return trainer
