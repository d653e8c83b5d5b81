"""Folders of small pictures, a folder for every class."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["Äpfel", "blue jay", "cat"]


def write_folder(root, classes=CLASSES, count=8, seed=0):
    """Noisy pictures of several sizes and kinds of file, with a bright band whose place is the class."""
    generator = np.random.default_rng(seed)
    for k, name in enumerate(classes):
        folder = Path(root) / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            height, width = generator.integers(12, 30, 2)
            pixels = generator.integers(0, 90, (height, width, 3), dtype=np.uint8)
            rows = slice(k * height // len(classes), (k + 1) * height // len(classes))
            pixels[rows] += np.array([150, 100, 50], dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"Bild {i} ü.{'png' if i % 2 else 'jpg'}")
