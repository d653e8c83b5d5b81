"""Several processes evaluate every image once: Lightning's own way repeats some."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from lightning_attractors.contracts import evaluates_alone, samplers_of
from lightning_attractors.sharing import repeat_nothing, repeats_images


class EveryImageOnce(Callback):
    """Has several processes validate and test every image once, whatever data module it is of.

    Lightning repeats images until all processes have as many, so that averages count some of them twice:
    11 images on two processes are 12. Here some processes have an image fewer than others, and metrics that
    are sums over all processes, as those of torchmetrics are, come out as on one.

    That takes a module whose steps do nothing together and log no means with ``sync_dist=True``: a process
    may have a batch fewer, and would leave others waiting; and Lightning divides such means by the truncated
    mean of the processes' numbers of images. A module says so by ``evaluates_alone = True``, as the models of
    this package do. For others images are repeated as before, and a warning says how many.

    Samplers and batch samplers that a loader was given by hand and training are left as they are, but for a
    ``DistributedSampler`` that repeats images.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        process_dataloader = trainer.strategy.process_dataloader

        def share_out(dataloader: object) -> object:
            if not trainer.training and isinstance(dataloader, DataLoader):
                _share_out(dataloader, pl_module)
            return process_dataloader(dataloader)

        # What Lightning calls with every loader, after it has put its own sampler there
        vars(trainer.strategy)["process_dataloader"] = share_out

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        vars(trainer.strategy).pop("process_dataloader", None)


def _share_out(loader: DataLoader[Any], module: L.LightningModule) -> None:
    for sampler in filter(repeats_images, samplers_of(loader)):
        if evaluates_alone(module):
            repeat_nothing(sampler)
            continue
        count, kind = len(sampler.dataset), type(module).__name__
        rank_zero_warn(
            f"{sampler.total_size - count} of {count} images count twice, so that processes have as many; "
            f"where steps of {kind} neither wait for others nor log with sync_dist, but update torchmetrics, "
            f"evaluates_alone = True on {kind} has each count once"
        )
