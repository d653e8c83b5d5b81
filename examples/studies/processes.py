"""How far weights differ between one process and two: ``python examples/studies/processes.py``.

A non-expansive network learns for 40 steps from the same 32 images, on one process and on two with 16 each.
The gradients are the same but for the order of their sums. In float32 Adam makes that visible: it divides a
gradient by its own size, and so takes full steps along one that is little more than rounding. A larger eps of
Adam does away with that, and so does float64: no other difference hides behind it.
"""

from __future__ import annotations

import logging
from functools import partial
from itertools import product
from typing import Literal

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_attractors import NonexpansiveNet

IMAGES, STEPS = 32, 40
Precision = Literal["32-true", "64-true"]


def learned(processes: int, precision: Precision, eps: float) -> Tensor:
    """All weights after the training, one after the other."""
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(IMAGES, 1, 12, 12), torch.randint(5, (IMAGES,)))
    torch.manual_seed(0)
    optimizer = partial(torch.optim.Adam, lr=1e-3, eps=eps)
    model = NonexpansiveNet(5, (1, 12, 12), loss="hinge", margin=0.3, optimizer=optimizer)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp_fork" if processes > 1 else "auto",
        precision=precision,
        max_epochs=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if precision == "64-true":
        model.double()  # here too, since that is where the processes' weights come back to
    trainer.fit(model, DataLoader(data, batch_size=IMAGES // processes))
    return torch.nn.utils.parameters_to_vector(model.parameters()).double()


def main() -> None:
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    precisions: tuple[Precision, ...] = ("32-true", "64-true")
    for precision, eps in product(precisions, (1e-8, 1e-3)):
        one, two = (learned(processes, precision, eps) for processes in (1, 2))
        print(f"{precision}  eps {eps:g}  largest difference {float((one - two).abs().max()):.1e}")


if __name__ == "__main__":
    main()
