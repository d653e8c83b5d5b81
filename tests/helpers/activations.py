"""The activations of Krotov and Hopfield's networks, as they are written."""

import torch
from torch.nn import functional

ACTIVATIONS = {
    "ReLU": functional.relu,
    "ELU": functional.elu,
    "GELU": functional.gelu,
    "PReLU": lambda x: functional.prelu(x, torch.tensor([0.25], dtype=x.dtype)),
    "rExp": lambda x: torch.expm1(x).clamp(min=0),
}
