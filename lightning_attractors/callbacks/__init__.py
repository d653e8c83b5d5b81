"""Callbacks for any Lightning project: certificates, guards and pictures."""

from lightning_attractors.callbacks.basin_pictures import BasinPictures
from lightning_attractors.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from lightning_attractors.callbacks.epoch_lines import EpochLines
from lightning_attractors.callbacks.every_image_once import EveryImageOnce
from lightning_attractors.callbacks.f_score import CollapsedError, FScore
from lightning_attractors.callbacks.finite import FiniteLoss
from lightning_attractors.callbacks.pictures import AttractorPictures
from lightning_attractors.callbacks.predictions import Predictions
from lightning_attractors.callbacks.robustness_curve import BrokenCertificateError, RobustnessCurve
from lightning_attractors.callbacks.stability import StabilityCertificate, UnstableError
from lightning_attractors.callbacks.sweep_report import SweepReport

__all__ = [
    "AttractorPictures",
    "BasinPictures",
    "BestCheckpoint",
    "BrokenCertificateError",
    "CollapsedError",
    "EpochLines",
    "EveryImageOnce",
    "FScore",
    "FiniteLoss",
    "LastCheckpoint",
    "Predictions",
    "RobustnessCurve",
    "StabilityCertificate",
    "SweepReport",
    "UnstableError",
]
