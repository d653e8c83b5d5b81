"""``precision: auto``: float32 or bfloat16 products, by what is faster on the machine at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, get_args

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_attractors.errors import SettingError, require
from lightning_attractors.linalg import ProductSpeed, has_small_products, largest_product, measure_products

FasterPrecision = Literal["32-true", "bf16-mixed"]
# Lightning's own, and "auto"
TrainerPrecision = Literal[
    "auto",
    "32-true",
    "16-mixed",
    "bf16-mixed",
    "64-true",
    "16-true",
    "bf16-true",
    "transformer-engine",
    "transformer-engine-float16",
    "64",
    "32",
    "16",
    "bf16",
    64,
    32,
    16,
]
Measure = Callable[[tuple[int, int, int], torch.device], ProductSpeed]

# Devices whose products can be timed.
_MEASURED = ("mps", "cuda", "cpu")
_ALIASES: dict[str, FasterPrecision] = {"bf16": "bf16-mixed", "32": "32-true", "None": "32-true"}
_DTYPES: dict[str, torch.dtype] = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
# What a process has chosen, for the processes that Lightning's launcher starts from it.
_CHOSEN = "LIGHTNING_ATTRACTORS_PRECISION"


def faster_precision(
    module: nn.Module | None = None,
    accelerator: Any = "auto",
    begun_with: str | None = None,
    measure: Measure = measure_products,
) -> FasterPrecision:
    """The ``precision`` for a ``Trainer`` in which products of the module's shape are faster here.

    One line of the log says what was chosen and why. Processes that Lightning starts from this one choose
    the same.

    Args:
        module: whose largest weight says what shape to measure.
        accelerator: the trainer's; where it leaves the choice, the device that Lightning takes.
        begun_with: the precision of a run that is to be resumed, which it keeps unless that is more than
            twice as slow here.
        measure: times products, as :func:`~lightning_attractors.linalg.measure_products` does.

    Returns:
        ``bf16-mixed`` where bfloat16 is faster by a fifth or more, else ``32-true``; always that for models
        so small that their products are not what takes time.

    Raises:
        SettingError: if the device can compute products in neither.

    Example:
        >>> def slow_bfloat16(shape, device):
        ...     return ProductSpeed(shape, device, float32=0.001, bfloat16=0.025)
        >>> faster_precision(torch.nn.Linear(784, 100), "cpu", measure=slow_bfloat16)
        '32-true'
    """
    shape, device = largest_product(module), _device(accelerator)
    if device is None:
        valid = f"is measured on {', '.join(_MEASURED)}; name a precision for accelerator={accelerator}"
        raise SettingError("precision", "auto", valid)
    begun_with = _ALIASES.get(begun_with or "", begun_with)
    if has_small_products(module):
        precision: FasterPrecision = "bf16-mixed" if begun_with == "bf16-mixed" else "32-true"
        rank_zero_info(f"precision auto: {precision} (the model's products are too small to matter)")
        return precision
    question = f"{shape} on {device}: "  # a later run in this process may ask another one
    known = os.environ.get(_CHOSEN, "").removeprefix(question)
    if "LOCAL_RANK" in os.environ and known in get_args(FasterPrecision):
        return known  # type: ignore[return-value]
    speed = measure(shape, device)
    if speed.faster is None:
        raise SettingError(
            "precision", "auto", f"{speed.device.type} has products in neither precision; name one"
        )
    precision = "bf16-mixed" if speed.faster == torch.bfloat16 else "32-true"
    why = str(speed)
    if begun_with in _DTYPES and begun_with != precision:
        if speed.is_far_slower(_DTYPES[begun_with]):
            why = f"not {begun_with}, which the run began with: {why}"
        else:
            precision, why = begun_with, f"the run began with it; {why}"  # type: ignore[assignment]
    rank_zero_info(f"precision auto: {precision} ({why})")
    os.environ[_CHOSEN] = f"{question}{precision}"
    return precision


def warn_if_slow(
    precision: Any, module: nn.Module | None, accelerator: Any, measure: Measure = measure_products
) -> None:
    """One line if a precision with bfloat16 products was asked for on a machine that is slow at them."""
    device = _device(accelerator)
    if device is None or not str(precision).startswith("bf16"):
        return
    speed = measure(largest_product(module), device)
    if speed.is_far_slower(torch.bfloat16):
        factor = speed.bfloat16 / speed.float32
        rank_zero_warn(
            f"trainer.precision={precision}: products take {factor:.0f} times as long as in float32 on this "
            f"machine ({speed}); --trainer.precision auto or 32-true is faster"
        )


class SamePrecision(Callback):
    """Ends a run whose processes, started one by one, have not all chosen the precision of the first."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        first = trainer.strategy.broadcast(trainer.precision)
        problem = f"process 0 has {first}, process {trainer.global_rank} has {trainer.precision}; name one"
        require(trainer.precision == first, "trainer.precision", "auto", problem)


def _device(accelerator: Any) -> torch.device | None:
    """The device that Lightning will take; None for those whose products cannot be timed here."""
    if not isinstance(accelerator, str):
        accelerator = type(accelerator).__name__.lower().removesuffix("accelerator")
    available = (torch.backends.mps.is_available(), torch.cuda.is_available(), True)
    named = {"auto": _MEASURED, "gpu": _MEASURED[:2]}.get(accelerator, (accelerator,))
    if not set(named) <= set(_MEASURED):
        return None
    there = [name for name, here in zip(_MEASURED, available, strict=True) if here and name in named]
    return torch.device(there[0] if there else "cpu")  # one that is not there is Lightning's to refuse
