"""Training steps of non-expansive networks against their unconstrained twins."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
import yaml
from benchmarks.timing import Run, ratio, report, rounds
from rich.table import Table
from torch import Tensor

from lightning_attractors.models import OPTIMIZATION_SETTINGS, NonexpansiveNet

# The networks and batches of these configs.
CONFIGS = Path(__file__).parents[2] / "configs"
NONEXPANSIVE = ("nonexpansive_mnist", "nonexpansive_cifar10")
CONSTRAINED_LIMIT = 1.5


def classifier_step(model: NonexpansiveNet, images: Tensor, labels: Tensor) -> Run:
    """Forward, loss, backward, Adam and, in a constrained network, the retraction."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

    def step() -> None:
        optimizer.zero_grad()
        model.margin_loss(model(images), labels).backward()
        optimizer.step()
        model.constrain_()

    return step


def nonexpansive(count: int) -> None:
    """Training step of a non-expansive network against its unconstrained twin's."""
    title = f"Non-expansive training step, {torch.get_num_threads()} threads, median of {count}"
    table = Table("config", "batch", "constrained", "twin", "constrained / twin", "limit", title=title)
    for name in NONEXPANSIVE:
        config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        size, settings = config["data"]["init_args"]["batch_size"], config["model"]["init_args"]
        shape = {key: value for key, value in settings.items() if key not in OPTIMIZATION_SETTINGS}
        torch.manual_seed(0)
        variants: dict[str, Run] = {}
        for constrained in (True, False):
            model = NonexpansiveNet(**shape, constrained=constrained)
            images = torch.rand(size, *model.hparams["image_shape"])
            variants[str(constrained)] = classifier_step(model, images, torch.arange(size) % 10)
        seconds = rounds(variants, count)
        table.add_row(
            name,
            str(size),
            *(f"{1e3 * statistics.median(seconds[str(kind)]):.1f} ms" for kind in (True, False)),
            f"{ratio(seconds['True'], seconds['False']):.2f}",
            f"{CONSTRAINED_LIMIT:g}",
        )
    report(table)
