"""Classifiers that are dynamical systems with planted attractors of certified stability, on Lightning.

The names below are imported when they are asked for: ``import lightning_attractors`` alone loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_attractors.callbacks import (
        AttractorPictures,
        BasinPictures,
        FiniteLoss,
        FScore,
        Predictions,
        RobustnessCurve,
        StabilityCertificate,
    )
    from lightning_attractors.data import (
        CIFAR10DataModule,
        FashionMNISTDataModule,
        ImageFolderDataModule,
        LettersDataModule,
        MNISTDataModule,
        TorchvisionDataModule,
    )
    from lightning_attractors.models import (
        CVFR,
        NMODE,
        SANODE,
        AttractorClassifier,
        BackpropCNN,
        FieldClassifier,
        KrotovHopfield,
        NonexpansiveNet,
    )
    from lightning_attractors.training import TwoPhaseTrainer

__version__ = "0.1.0"

__all__ = [
    "CVFR",
    "NMODE",
    "SANODE",
    "AttractorClassifier",
    "AttractorPictures",
    "BackpropCNN",
    "BasinPictures",
    "CIFAR10DataModule",
    "FScore",
    "FashionMNISTDataModule",
    "FieldClassifier",
    "FiniteLoss",
    "ImageFolderDataModule",
    "KrotovHopfield",
    "LettersDataModule",
    "MNISTDataModule",
    "NonexpansiveNet",
    "Predictions",
    "RobustnessCurve",
    "StabilityCertificate",
    "TorchvisionDataModule",
    "TwoPhaseTrainer",
    "__version__",
]

_ROOMS = ("models", "data", "training", "callbacks")  # the one that loads most comes last


def __getattr__(name: str) -> Any:
    if name in __all__:
        for room in _ROOMS:
            module = import_module(f"{__name__}.{room}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
