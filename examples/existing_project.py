"""An existing Lightning project, with one line added: ``python examples/existing_project.py``.

A plain CNN is trained on generated images, in seconds. Its batches are dicts, its inputs are normalised, and
its ``forward`` gives features too. What ``RobustnessCurve`` must be told of that is said by its arguments;
nothing in the module is for its sake. One of the attacks is torchattacks' (the extra ``[attacks]``).
"""

from pathlib import Path

import lightning as L
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from lightning_attractors.callbacks import RobustnessCurve

MEAN, STD = 0.3, 0.25


class Bands(Dataset):
    """Noisy images with a bright band whose place is the class; dicts of normalised pixels and a target."""

    def __init__(self, count, seed):
        torch.manual_seed(seed)
        self.targets = torch.arange(count) % 4
        images = 0.4 * torch.rand(count, 1, 12, 12)
        for image, target in zip(images, self.targets.tolist(), strict=True):
            image[:, 3 * target : 3 * target + 3] += 0.25 + 0.35 * torch.rand(())
        self.pixels = (images - MEAN) / STD

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return {"pixels": self.pixels[index], "target": self.targets[index]}


class PlainCNN(L.LightningModule):
    """A CNN as in any project."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Linear(200, 4)

    def forward(self, pixels):
        features = self.features(pixels)
        return self.head(features), features

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self(batch["pixels"])[0], batch["target"])

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


CURVE = {
    "unpack_batch": lambda batch: (batch["pixels"], batch["target"]),
    "logits_fn": lambda module, pixels: module(pixels)[0],
    "mean": MEAN,  # one number for all channels, or a list with one for each
    "std": STD,
}


def main(folder=Path("runs/existing_project")):
    L.seed_everything(0)
    attacks = ["fgsm_radius", "pgd_radius", "torchattacks.FGSM"]
    strengths = [0.05, 0.1, 0.15, 0.2, 0.3, 0.4]
    # The first 550 test images: R counts from 501 confident ones on. In test, as fit is given no test images.
    curve = RobustnessCurve(attacks, strengths, max_images=550, after_fit=False, **CURVE)
    module = PlainCNN()
    trainer = L.Trainer(
        max_epochs=3, callbacks=[curve], default_root_dir=folder, accelerator="cpu", logger=False
    )
    trainer.fit(module, DataLoader(Bands(800, seed=0), batch_size=50, shuffle=True))
    trainer.test(module, DataLoader(Bands(600, seed=1), batch_size=200))
    for name, found in curve.results.items():
        R = f"R = {found['R']:.4f} ± {found['uncertainty']:.4f}" if found["fitted"] else found["reason"]
        print(f"{name}: {R}")
    print(f"Tables and pictures: {folder}/robustness")


if __name__ == "__main__":
    main()
