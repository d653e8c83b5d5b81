"""Trainers: Lightning's own, with phases."""

from lightning_attractors.training.two_phase import TwoPhaseTrainer

__all__ = ["TwoPhaseTrainer"]
