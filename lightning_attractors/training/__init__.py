"""Trainers: Lightning's own, with phases, in the precision that is faster here."""

from lightning_attractors.training.precision import SamePrecision, faster_precision, warn_if_slow
from lightning_attractors.training.two_phase import TwoPhaseTrainer

__all__ = ["SamePrecision", "TwoPhaseTrainer", "faster_precision", "warn_if_slow"]
