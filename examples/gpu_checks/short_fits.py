"""A short fit of every family in three precisions, and its certificates on the device and on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from benchmarks.trainers import quiet_trainer
from gpu_checks.families import FAMILIES, family, letters
from gpu_checks.table import Row, attempted
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_attractors.certificates import certify_equilibria, summing_products
from lightning_attractors.models import NMODE, AttractorClassifier, NonexpansiveNet

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
# Figures of one model on two devices are of the same float64 sums, or of float32 logits.
_DEVIATION = 1e-3
_CERTIFIED, _SECONDS = 4, 60.0


def short_fits(device: torch.device, epochs: int = 2) -> Iterator[Row]:
    """A row for every family and precision."""
    for name in FAMILIES:
        for precision in PRECISIONS:
            what = f"{name}, {precision}"
            yield attempted(what, lambda name=name, kind=precision: short_fit(name, device, kind, epochs))


def short_fit(name: str, device: torch.device, precision: str, epochs: int) -> Row:
    """Train, and compare what is certified there with what is certified on the CPU, of the same weights."""
    model, losses, data = family(name), _Losses(), letters()
    learns = int(name == "KrotovHopfield")
    trainer = quiet_trainer(
        accelerator=device.type,
        devices=1,
        max_epochs=epochs,
        filter_epochs=learns,
        callbacks=[losses],
        precision=precision,
    )
    trainer.fit(model, datamodule=data)
    first, last = losses.mean(first=True), losses.mean(first=False)
    accuracy = float(trainer.callback_metrics["val/accuracy"])
    images, labels = data.datasets["test"].__getitems__(range(_CERTIFIED))
    there, here = (certified(name, model, images, labels, place) for place in (device, torch.device("cpu")))
    off = max(_deviation(there[key], here[key]) for key in here)
    found = f"loss {first:.3g} → {last:.3g}, accuracy {accuracy:.3f}; {', '.join(here)} off by {off:.1e}"
    values = {"loss": last, "accuracy": accuracy, "deviation": off, "certified": [*here]}
    return Row(f"{name}, {precision}", found, math.isfinite(last) and off <= _DEVIATION, values)


class _Losses(Callback):
    """The loss of every step of the classifier, kept on the device until the end."""

    def __init__(self) -> None:
        self.epochs: dict[int, list[Tensor]] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        if trainer.current_epoch >= trainer.filter_epochs:
            self.epochs.setdefault(trainer.current_epoch, []).append(outputs["loss"].detach())

    def mean(self, first: bool) -> float:
        """Of the first or the last epoch."""
        return float(torch.stack(self.epochs[(min if first else max)(self.epochs)]).mean())


def certified(
    name: str, trained: L.LightningModule, images: Tensor, labels: Tensor, device: torch.device
) -> dict[str, Tensor]:
    """What can be proved of the model with the trained weights on a device, and its logits; on the CPU."""
    model = family(name)
    model.load_state_dict(trained.state_dict())
    model.eval().to(device)
    images, labels = images.to(device), labels.to(device)
    with summing_products(device):
        found = {"logits": model(images).detach()}
        if isinstance(model, NMODE | NonexpansiveNet):
            found["gains"] = torch.tensor([*model.gain_bounds().values()], dtype=torch.float64)
            found["radii"] = model.certified_radii(images, labels)
        if isinstance(model, AttractorClassifier):
            if name.startswith("SANODE") and model.integrator == "euler":
                model.certified_seconds = (
                    _SECONDS  # none is cut short where many small operations take longer
                )
                found["radii"] = model.certified_radii(images, labels)
            found |= _stability(model.double())
    return {key: value.cpu().double() for key, value in found.items()}


def _stability(model: AttractorClassifier) -> dict[str, Tensor]:
    """Of every attractor: the abscissa of the flow, the radius of the step map and whether it is stable."""
    points = certify_equilibria(model.equilibria().double(), model.vector_field, model.step_map)
    rows = [
        (one.flow.spectrum.abscissa, one.step.spectrum.radius, float(one.stable))
        for one in points
        if one.step is not None
    ]
    return {"spectra": torch.tensor(rows, dtype=torch.float64)}


def _deviation(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the size of the figures; 0 where both are infinite or nan."""
    both = one.isfinite() & other.isfinite()
    if not torch.equal(one.isfinite(), other.isfinite()):
        return math.inf
    scale = other[both].abs().max().clamp(min=1.0) if both.any() else 1.0
    return float(((one - other)[both].abs().max() / scale) if both.any() else 0.0)
