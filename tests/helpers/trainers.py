"""The trainer of tests that are not about the trainer."""

import lightning as L


def quiet_trainer(path, callbacks, **settings):
    """A trainer on the CPU that writes nothing of its own, with its root folder at ``path``."""
    return L.Trainer(
        callbacks=callbacks,
        default_root_dir=path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, **settings},
    )
