"""A learning-rate schedule that is tried before a training relies on it."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lightning_attractors.errors import SettingError


def build_schedule(factory: Callable[[Optimizer], Any], optimizer: Optimizer) -> Any:
    """The scheduler that a factory makes for an optimiser.

    Raises:
        SettingError: if the factory refuses its settings.
    """
    try:
        return factory(optimizer)
    except SettingError:
        raise
    except (ValueError, TypeError, ArithmeticError) as error:
        valid = f"does not accept its settings: {' '.join(str(error).split())}"
        raise SettingError("lr_scheduler", _name(factory), valid) from error


def try_schedule(scheduler: Any, watches: bool) -> None:
    """Step a copy of a scheduler, which fails now where the scheduler would fail amid a training.

    Args:
        scheduler: of an optimiser, which stays as it is.
        watches: whether it is stepped with a metric.

    Raises:
        SettingError: if a step fails, or gives a learning rate that is not finite.
    """
    optimizer = scheduler.optimizer
    stand_in = object.__new__(type(optimizer))
    groups = [{name: _own(value) for name, value in group.items()} for group in optimizer.param_groups]
    stand_in.__dict__ = {**vars(optimizer), "param_groups": groups}
    try:
        trial = copy.deepcopy(scheduler, {id(optimizer): stand_in})
    except Exception:  # of one that cannot be copied nothing is known
        return
    name = type(scheduler).__name__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimiser has not stepped
        try:
            trial.step(*([1.0] if watches else []))
        except (ValueError, TypeError, ArithmeticError, LookupError) as error:
            valid = f"cannot step with its settings: {' '.join(str(error).split())}"
            raise SettingError("lr_scheduler", name, valid) from error
    rates = [float(group["lr"]) for group in stand_in.param_groups if "lr" in group]
    if not all(math.isfinite(rate) for rate in rates):
        raise SettingError("lr_scheduler", name, f"must give finite learning rates, not {rates}")


def _own(value: Any) -> Any:
    """A learning rate that is a tensor is changed in place."""
    return value.clone() if isinstance(value, Tensor) else value


def _name(factory: Any) -> str:
    """The name of the class that a factory makes something of, where it shows."""
    parts = [factory.func, *factory.args] if isinstance(factory, partial) else [factory]
    kinds = [part for part in parts if isinstance(part, type)]
    return kinds[0].__name__ if kinds else "lr_scheduler"
