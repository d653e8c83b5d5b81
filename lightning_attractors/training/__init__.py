"""Trainers: Lightning's own, with phases, in the precision that is faster here; files of checkpoints."""

from lightning_attractors.training.checkpoint_files import CheckpointFiles
from lightning_attractors.training.precision import SamePrecision, faster_precision, warn_if_slow
from lightning_attractors.training.threads import suit_threads
from lightning_attractors.training.two_phase import TwoPhaseTrainer

__all__ = [
    "CheckpointFiles",
    "SamePrecision",
    "TwoPhaseTrainer",
    "faster_precision",
    "suit_threads",
    "warn_if_slow",
]
