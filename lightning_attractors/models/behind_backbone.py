"""What models behind a backbone share: settings and checkpoints that know which one it is."""

from __future__ import annotations

import copy
import warnings
from typing import Any

from torch import nn

from lightning_attractors.errors import require
from lightning_attractors.models.base import OPTIMIZATION_SETTINGS, Classifier


class BackboneClassifier(Classifier):
    """A classifier of what a backbone makes of images.

    Attributes:
        backbone: gives features, of any shape, of a batch of images.
    """

    backbone: nn.Module

    def save_settings(self, *objects: str, ignore: tuple[str, ...] = ()) -> None:
        """Keep the settings for checkpoints; called by constructors.

        Args:
            *objects: settings that are objects; only what the command line can rebuild them from is kept.
            ignore: settings that are not kept.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module`")
            self.save_hyperparameters(ignore=[*OPTIMIZATION_SETTINGS, *ignore])
        for name in objects:
            if not isinstance(self.hparams[name], dict | None):
                del self.hparams[name]
        backbone = copy.deepcopy(self.hparams.get("backbone"))
        if backbone and "weights" in backbone.get("init_args", {}):
            backbone["init_args"]["weights"] = None  # a checkpoint has its own
            self.save_hyperparameters({"backbone": backbone})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["backbone_class"] = type(self.backbone).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        ours = type(self.backbone).__name__
        theirs = checkpoint.get("backbone_class", ours)
        # Without parameters the wrong backbone would fit the weights just as well.
        require(ours == theirs, "backbone", ours, f"must be the checkpoint's own, {theirs}")
