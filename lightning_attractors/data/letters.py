"""Letters: noisy copies of 7 × 7 glyphs, a data set that needs no files."""

from __future__ import annotations

import torch

from lightning_attractors.data.base import InMemoryDataModule, Labelled
from lightning_attractors.data.glyphs import GLYPHS, SIDE, glyph_images
from lightning_attractors.errors import require


class LettersDataModule(InMemoryDataModule):
    """Copies of binary 7 × 7 letters, which only the noise makes differ; class k is the k-th letter.

    Every split cycles through the classes, so they are balanced. Images are float32 of shape (B, 1, 7, 7),
    with the values 0 and 1 before noise. Noise is as in :class:`InMemoryDataModule`: fresh in every epoch in
    training, fixed in validation and test.

    Args:
        letters: distinct letters of A–Z, as a string or a list of single letters. In YAML, quote strings that
            read as booleans, such as "NO".
        n_train: training images in all, at least 1.
        n_val: validation images in all, at least 1.
        n_test: test images in all, at least 1.
        noise_train: fraction of pixels replaced by U(0, 1) in training and validation images, from 0 to 1.
        noise_test: the same for test images.
        batch_size: training images per batch and process, at least 1.
        eval_batch_size: validation, test or prediction images per batch and process, at least 1.
        seed: seed of noise and training order, at least 0.

    Raises:
        SettingError: when a setting is out of range, or a letter is unknown or repeated.

    Example:
        >>> data = LettersDataModule(letters="ABC", n_test=6, noise_test=0.0)
        >>> data.setup()
        >>> images, labels = next(iter(data.test_dataloader()))
        >>> images.shape, labels
        (torch.Size([6, 1, 7, 7]), tensor([0, 1, 2, 0, 1, 2]))
    """

    image_shape = (1, SIDE, SIDE)

    def __init__(
        self,
        letters: list[str] | str = "ABCDE",
        n_train: int = 2000,
        n_val: int = 500,
        n_test: int = 1000,
        noise_train: float = 0.3,
        noise_test: float = 0.3,
        batch_size: int = 50,
        eval_batch_size: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, noise_train, noise_test, seed=seed)
        require(len(letters) > 0, "letters", letters, "must name at least one letter of A-Z")
        unknown = [letter for letter in letters if letter not in GLYPHS]
        require(not unknown, "letters", letters, f"must be letters of A-Z; unknown: {', '.join(unknown)}")
        repeated = sorted({letter for letter in letters if list(letters).count(letter) > 1})
        require(not repeated, "letters", letters, f"must be distinct; repeated: {', '.join(repeated)}")
        for name, count in (("n_train", n_train), ("n_val", n_val), ("n_test", n_test)):
            require(count >= 1, name, count, "must be at least 1")
        self.class_names = list(letters)
        self.num_classes = len(letters)
        self.sizes = (n_train, n_val, n_test)

    def load_splits(self) -> tuple[Labelled, Labelled, Labelled]:
        train, val, test = (self._copies(size) for size in self.sizes)
        return train, val, test

    def _copies(self, size: int) -> Labelled:
        labels = torch.arange(size) % self.num_classes
        return Labelled(glyph_images("".join(self.class_names))[labels], labels)
