"""Optimisers as settings: what the command line and YAML files may name in short."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

# Registers it among the optimisers below.
from lightning_attractors.optim.muon import Muon  # noqa: F401

if TYPE_CHECKING:
    OptimizerCallable = Callable[[Iterable[Any]], Optimizer]
else:

    class _Optimizers(type):
        """``Optimizer``, but for torch.optim.Muon among its subclasses, so that ``Muon`` alone is ours.

        jsonargparse takes short names from ``__subclasses__`` and refuses one that two classes share. By its
        full name torch's is an optimiser as all others.
        """

        def __subclasses__(cls) -> list[type]:
            return [kind for kind in Optimizer.__subclasses__() if kind is not _TORCHS]

        def __subclasscheck__(cls, kind: type) -> bool:
            return issubclass(kind, Optimizer)

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, Optimizer)

    class AnyOptimizer(metaclass=_Optimizers):
        """Any optimiser."""

    _TORCHS = torch.optim.Muon
    OptimizerCallable = Callable[[Iterable], AnyOptimizer]
