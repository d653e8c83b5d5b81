"""One LightningDataModule per data set, over one small in-memory base."""

from lightning_attractors.data.base import InMemoryDataModule, Labelled
from lightning_attractors.data.cifar10 import CIFAR10DataModule
from lightning_attractors.data.folders import ImageFolderDataModule
from lightning_attractors.data.letters import LettersDataModule
from lightning_attractors.data.mnist import FashionMNISTDataModule, MNISTDataModule
from lightning_attractors.data.pictures import PictureDataModule, Pictures
from lightning_attractors.data.torchvision_sets import TorchvisionDataModule

__all__ = [
    "CIFAR10DataModule",
    "FashionMNISTDataModule",
    "ImageFolderDataModule",
    "InMemoryDataModule",
    "Labelled",
    "LettersDataModule",
    "MNISTDataModule",
    "PictureDataModule",
    "Pictures",
    "TorchvisionDataModule",
]
