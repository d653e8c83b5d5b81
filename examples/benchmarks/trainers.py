"""A trainer of which nothing is seen."""

from __future__ import annotations

from typing import Any

from lightning_attractors.training import TwoPhaseTrainer


def quiet_trainer(**settings: Any) -> TwoPhaseTrainer:
    """A trainer that writes and prints nothing, with what else is set."""
    return TwoPhaseTrainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
