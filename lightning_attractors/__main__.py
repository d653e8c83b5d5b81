"""Entry point of ``python -m lightning_attractors``."""

from __future__ import annotations

import sys
import warnings

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_attractors.callbacks import CollapsedError, UnstableError
from lightning_attractors.cli import AttractorsCLI
from lightning_attractors.errors import NonFiniteError, SettingError
from lightning_attractors.training import TwoPhaseTrainer

_FOR_PEOPLE = (SettingError, NonFiniteError, UnstableError, CollapsedError, MisconfigurationException)


def main() -> None:
    """Run the command line; errors made for people are one line, without a traceback."""
    # Raised inside Lightning by newer versions of torch; nothing that a user could act on.
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)")
    try:
        AttractorsCLI(
            trainer_class=TwoPhaseTrainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            auto_configure_optimizers=False,
        )
    except Exception as error:
        cause = _meant_for_people(error)
        if cause is None:
            raise
        sys.exit("error: " + " ".join(str(cause).split()))


def _meant_for_people(error: BaseException | None) -> BaseException | None:
    """The first error in the chain of causes that a user is meant to read: jsonargparse wraps them."""
    while error is not None and not isinstance(error, _FOR_PEOPLE):
        error = error.__cause__ or error.__context__
    return error


if __name__ == "__main__":
    main()
