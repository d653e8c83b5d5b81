"""A small model of every family, with the options that train in ways of their own, and data for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lightning_attractors.data import LettersDataModule
from lightning_attractors.models import (
    CVFR,
    NMODE,
    SANODE,
    TRADES,
    BackpropCNN,
    BasinTraining,
    FieldClassifier,
    IntervalTraining,
    KrotovHopfield,
    NonexpansiveNet,
)
from lightning_attractors.optim import Muon

LETTERS, SHAPE = "ABCDE", (1, 7, 7)


class Wells(nn.Linear):
    """F(x) = x − x³ + W tanh(x) + b."""

    def __init__(self) -> None:
        super().__init__(49, 49)

    def forward(self, x: Tensor) -> Tensor:
        """F(x) of states (B, N)."""
        return x - x**3 + super().forward(x.tanh())


def _family(kind: Callable[..., L.LightningModule], **settings: Any) -> Callable[[], L.LightningModule]:
    rate = partial(torch.optim.Adam, lr=0.01)
    return lambda: kind(**{"num_classes": len(LETTERS), "image_shape": SHAPE, "optimizer": rate, **settings})


_STAGES = {"widths": [4], "depths": [1], "strides": [1], "dense_depth": 1, "dense_width": 8}
_FILTERS = {"grid": 3, "kernel_size": 3, "pool_size": 2, "power": 3}
FAMILIES: dict[str, Callable[[], L.LightningModule]] = {
    "SANODE": _family(SANODE, steps=20),
    "SANODE, projected, Muon": _family(SANODE, coupling="projected", steps=20, optimizers={"coupling": Muon}),
    "SANODE, basins": _family(SANODE, steps=20, basins=BasinTraining(decide=5)),
    "SANODE, Runge-Kutta": _family(SANODE, steps=5, integrator="rk4"),
    "CVFR": _family(CVFR, steps=20),
    "CVFR, noise": _family(CVFR, steps=20, sigma=0.1),
    "FieldClassifier": _family(lambda **settings: FieldClassifier(Wells(), steps=10, **settings)),
    "KrotovHopfield": _family(KrotovHopfield, **_FILTERS),
    "BackpropCNN": _family(BackpropCNN, **_FILTERS),
    "NMODE": _family(NMODE, width=16),
    "NMODE, clip and penalty": _family(NMODE, width=16, clip=0.1, gain_penalty=0.01, label_smoothing=0.1),
    "NMODE, intervals": _family(NMODE, width=16, intervals=IntervalTraining(0.1, warmup=0, ramp=0)),
    "NMODE, TRADES": _family(NMODE, width=16, trades=TRADES(steps=2)),
    "NonexpansiveNet": _family(NonexpansiveNet, **_STAGES, margin=0.5),
}


def family(name: str) -> L.LightningModule:
    """The model of that name, the same one every time."""
    torch.manual_seed(0)
    return FAMILIES[name]()


def letters(images: int = 200) -> LettersDataModule:
    """Noisy letters, so many to train with, in batches of 50."""
    return LettersDataModule(LETTERS, n_train=images, n_val=50, n_test=50)
