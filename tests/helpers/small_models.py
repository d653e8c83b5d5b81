"""A small model of every family, with the shape of its images."""

import torch

from lightning_attractors.models import (
    CVFR,
    NMODE,
    SANODE,
    BackpropCNN,
    FieldClassifier,
    KrotovHopfield,
    NonexpansiveNet,
)


class Wells(torch.nn.Linear):
    """F(x) = x − x³ + W tanh(x) + b."""

    def __init__(self):
        super().__init__(36, 36)

    def forward(self, x):
        return x - x**3 + super().forward(x.tanh())


STAGES = {"widths": [4], "depths": [1], "strides": [2]}
SMALL = {
    "SANODE": lambda: SANODE(3, (1, 6, 6), steps=6),
    "CVFR": lambda: CVFR(3, (1, 6, 6), steps=6),
    "FieldClassifier": lambda: FieldClassifier(Wells(), 3, (1, 6, 6), steps=5, integrator="rk4"),
    "NMODE": lambda: NMODE(3, (1, 6, 6), width=8),
    "NonexpansiveNet": lambda: NonexpansiveNet(3, (1, 6, 6), **STAGES, dense_depth=1, dense_width=8),
    "KrotovHopfield": lambda: KrotovHopfield(3, (1, 6, 6), grid=2, kernel_size=3, pool_size=2, power=3),
    "BackpropCNN": lambda: BackpropCNN(3, (1, 6, 6), grid=2, kernel_size=3, pool_size=2),
}


def small_model(name):
    """The model of that name, with images (B, 1, 6, 6) for it."""
    torch.manual_seed(0)
    return SMALL[name]().eval(), torch.rand(5, 1, 6, 6)
