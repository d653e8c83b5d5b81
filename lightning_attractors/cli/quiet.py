"""What a run does not print: lines of its libraries that nobody who runs one can act on."""

from __future__ import annotations

import logging
import warnings

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count
from torch import nn
from torch.nn.parameter import is_lazy

# How they begin. Which weights are used is said in a line of ours, and by a path that may be copied.
_LINES = (
    "💡 Tip:",
    "TPU available: False",
    "Loading `train_dataloader` to estimate",
    "Restoring states from the checkpoint path",
    "Loaded model weights from the checkpoint",
    "stability  fit",  # the test that follows says it of the best weights
)
_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning's own code, on newer versions of torch
    r"Checkpoint directory .* exists and is not empty",  # as that of every run which goes on
    r"Be aware that when using `ckpt_path`, callbacks used to create",  # the config says which there are
    r"Using `DistributedSampler` with the dataloaders",  # which repeats no image here
    r"The number of training batches .* is smaller than the logging",  # epochs are logged all the same
)


def quieten() -> None:
    """Leave out what Lightning says of itself; its logger is asked for by name, as its manual advises."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LINES)


class ParameterLine(Callback):
    """One line on what a model learns, in place of Lightning's table of layers."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            print(parameter_line(pl_module), flush=True)


def parameter_line(module: nn.Module) -> str:
    """How many parameters a module has, and in which of its parts."""
    counts: dict[str, int] = {}
    for name, parameter in module.named_parameters():
        part = name.split(".")[0]
        counts[part] = counts.get(part, 0) + (0 if is_lazy(parameter) else parameter.numel())
    parts = ", ".join(f"{part} {_count(size)}" for part, size in counts.items())
    return f"{type(module).__name__}: {_count(sum(counts.values()))} parameters" + (
        f" ({parts})" if parts else ""
    )


def _count(number: int) -> str:
    return " ".join(get_human_readable_count(number).split())
