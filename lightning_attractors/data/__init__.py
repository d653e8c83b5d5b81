"""One LightningDataModule per data set, over one small in-memory base."""

from lightning_attractors.data.base import InMemoryDataModule, Labelled
from lightning_attractors.data.cifar10 import CIFAR10DataModule
from lightning_attractors.data.letters import LettersDataModule
from lightning_attractors.data.mnist import FashionMNISTDataModule, MNISTDataModule

__all__ = [
    "CIFAR10DataModule",
    "FashionMNISTDataModule",
    "InMemoryDataModule",
    "Labelled",
    "LettersDataModule",
    "MNISTDataModule",
]
