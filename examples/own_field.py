"""A classifier of a vector field of your own: ``python examples/own_field.py``.

The same from the command line, in the folder of this file:
``python -m lightning_attractors fit --config own_field.yaml``.
"""

from functools import partial
from pathlib import Path

import lightning as L
import torch

from lightning_attractors.callbacks import AttractorPictures, StabilityCertificate
from lightning_attractors.data import LettersDataModule
from lightning_attractors.models import FieldClassifier


class Bistable(torch.nn.Module):
    """F(x) = x − x³ + W tanh(x) + b: nodes with two states of their own, all coupled."""

    def __init__(self, nodes: int):
        super().__init__()
        self.coupling = torch.nn.Linear(nodes, nodes)

    def forward(self, x):
        return x - x**3 + self.coupling(x.tanh())


def main(folder=Path("runs/own_field"), epochs=5):
    L.seed_everything(0)
    # One attractor per letter, a block of pixels at 1 in a sea at -1. What the field has there is taken away
    # by a linear map, so that they are equilibria whatever the weights are.
    model = FieldClassifier(
        Bistable(nodes=49),
        num_classes=5,
        image_shape=(1, 7, 7),
        optimizer=partial(torch.optim.Adam, lr=0.01),
    )
    certificate = StabilityCertificate()
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[certificate, AttractorPictures()],
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
    )
    data = LettersDataModule(noise_train=0.3, noise_test=0.3)
    trainer.fit(model, data)
    trainer.test(model, data)
    for letter, found in zip(data.class_names, certificate.certificates, strict=True):
        verdict = "stable" if found.stable else "NOT certified"
        print(f"attractor {letter}: {verdict}, real parts up to {found.flow.spectrum.abscissa:.3f}")
    print(f"test letters with 30 % noise: accuracy {trainer.callback_metrics['test/accuracy']:.3f}")
    print(f"The certificate in full: {folder}/stability.json; pictures: {folder}/figures")


if __name__ == "__main__":
    main()
