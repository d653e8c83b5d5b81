"""How robust is any torch model? No Lightning needed: ``python examples/any_torch_model.py``.

``measure`` wants something that gives logits of images in [0, 1], and batches of images and labels.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from lightning_attractors.robustness import PGD, measure, replace_pixels, write_report


def quadrants(count, seed):
    """Noisy images with one bright quarter, which is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = 0.6 * torch.rand(count, 1, 12, 12, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = 6 * (label // 2), 6 * (label % 2)
        image[:, top : top + 6, left : left + 6] += 0.1 + 0.3 * torch.rand((), generator=generator)
    return images, labels


def trained_model():
    """A small CNN after two hundred steps."""
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(200, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    images, labels = quadrants(1000, seed=0)
    for _ in range(200):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


def main(folder=Path("runs/any_torch_model")):
    torch.manual_seed(0)
    images, labels = quadrants(600, seed=1)
    # Searches for the radius of every image, and attacks and noise that are swept over the strengths.
    attacks = ["pgd_radius", {"class_path": PGD("l2", steps=20), "name": "pgd_l2"}, replace_pixels]
    batches = zip(images.split(200), labels.split(200), strict=True)
    report = measure(trained_model(), batches, attacks, strengths=[0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0])
    for name, found in report.attacks.items():
        at = ", ".join(f"{float(a):.2f}" for a in found.curve.accuracy[:: len(found.curve.accuracy) // 5])
        R = found.reason if found.robustness is None else f"R = {found.robustness:.3f}"
        print(f"{name}: {R}; accuracy from weak to strong {at}")
    print(report.masking.sentence)
    write_report(report, folder, about={"model": "small CNN"})
    print(f"Tables and pictures: {folder}")


if __name__ == "__main__":
    main()
