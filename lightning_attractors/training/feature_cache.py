"""Features of training images, kept where they stay the same from epoch to epoch."""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_attractors.contracts import HasFrozenPart, ServesFeatures, feature_server, frozen_part

# Images at a time: the same ones for every batch size, so that a resumed run has the same features.
_IMAGES = 500


class FeatureCache:
    """Replaces training images by what a frozen part of the module makes of them, if that fits in memory.

    It asks a module for ``frozen_features(images)`` and tells it ``trains_on_features``. It asks the training
    set, whose indices give whole batches of images and labels (``__getitems__``), whether it ``is_random``,
    and gives it ``features`` to serve in place of the images. If a module or a training set has none of
    this, or the features do not fit, one log line says why they are computed anew in every epoch.

    Args:
        budget_gb: memory for the features in GB (10⁹ bytes) per process; 0 for no cache.
    """

    def __init__(self, budget_gb: float) -> None:
        self.budget_gb = budget_gb
        self._frozen: HasFrozenPart | None = None
        self._dataset: ServesFeatures | None = None
        self._asked = False

    def fill(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Compute the features, the first time; later calls do nothing."""
        if self._asked or self.budget_gb == 0:
            return
        self._asked = True
        frozen, dataset = frozen_part(module), feature_server(trainer.train_dataloader)
        if frozen is None:
            rank_zero_info(f"no feature cache: {type(module).__name__} has no frozen part")
        elif dataset is None:
            rank_zero_info("no feature cache: the training set cannot serve features")
        elif dataset.is_random:
            rank_zero_info("no feature cache: training images change from epoch to epoch")
        else:
            self._fill(trainer, module, frozen, dataset)

    def clear(self) -> None:
        """Serve images again, and free the memory."""
        if self._dataset is not None and self._frozen is not None:
            self._dataset.features = None
            self._frozen.trains_on_features = False
        self._frozen, self._dataset, self._asked = None, None, False

    @torch.no_grad()
    def _fill(
        self, trainer: L.Trainer, module: L.LightningModule, frozen: HasFrozenPart, dataset: ServesFeatures
    ) -> None:
        def features_of(start: int, stop: int) -> Tensor:
            images, _ = dataset.__getitems__(range(start, stop))
            with trainer.precision_plugin.forward_context():
                features = frozen.frozen_features(images.to(module.device))
            return features.cpu()

        total = len(dataset)
        one = features_of(0, 1)
        size = total * one.numel() * one.element_size() / 1e9
        if size > self.budget_gb:
            rank_zero_info(f"no feature cache: {size:.2f} GB exceed feature_cache_gb={self.budget_gb}")
            return
        features = one.new_empty((total, *one.shape[1:]))
        for start in range(0, total, _IMAGES):
            stop = min(start + _IMAGES, total)
            features[start:stop] = features_of(start, stop)
        self._frozen, self._dataset, dataset.features = frozen, dataset, features
        frozen.trains_on_features = True
        rank_zero_info(f"feature cache: {size:.2f} GB hold the features of {total} training images")
