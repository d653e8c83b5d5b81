"""Certified radii of as many images as there is time for."""

from __future__ import annotations

import time
from collections.abc import Sequence

import lightning as L
import torch
from torch import Tensor

from lightning_attractors.callbacks.robustness_certificate import certificate_of
from lightning_attractors.callbacks.robustness_trainer import PixelLogits, undisturbed
from lightning_attractors.contracts import certified_norm, checked_radii
from lightning_attractors.errors import SettingError
from lightning_attractors.norms import NORMS
from lightning_attractors.robustness import Certificate


class RadiiInTime:
    """Asks a module for the certified radii of batch after batch, until the time is over.

    Args:
        trainer: whose module it is.
        module: with or without ``certified_radii``.
        seconds: the time, at least 0.
    """

    def __init__(self, trainer: L.Trainer, module: L.LightningModule, seconds: float) -> None:
        self.module, self.seconds, self.left = module, seconds, seconds
        self.asked = self.found = 0
        with undisturbed(module, None):
            logits = PixelLogits(trainer, module, None, None, None)
            self.certificate: Certificate = certificate_of(trainer, module, logits)
        self.refused = self.certificate.refused

    def of(self, images: Tensor, classes: Tensor) -> Tensor:
        """Radii (B,) within which images (B, C, H, W) keep classes (B,): float64, on the CPU, or nan."""
        certify, found = self.certificate.radii, list[Tensor]()
        self.asked += len(classes)
        with undisturbed(self.module, None), torch.no_grad():
            images, classes = images.clone(), classes.clone()  # those of inference mode know no gradients
            begin, size = 0, 1
            while certify and not self.refused and begin < len(classes) and self.left > 0:
                started, part = time.monotonic(), slice(begin, begin + size)
                try:
                    given = certify(images[part], classes[part])
                except SettingError as error:
                    self.refused = str(error)
                    break
                found.append(checked_radii(given, classes[part]))
                self.left -= (spent := time.monotonic() - started)
                begin += size
                # Some take microseconds for an image, some seconds
                size = max(1, min(2 * size, int(size * self.left / max(spent, 1e-6))))
        count = sum(map(len, found))
        self.found += count
        return torch.cat([*found, torch.full((len(classes) - count,), torch.nan, dtype=torch.float64)])

    @property
    def counts(self) -> tuple[int, int, str]:
        """How many images there were, how many have a radius, and why none could, if so."""
        return self.asked, self.found, self.refused

    def told(self, counts: Sequence[tuple[int, int, str]]) -> str:
        """What there is to say of the counts of all processes; empty of a module without radii."""
        refused = next((why for *_, why in counts if why), "")
        if refused:
            return f"no certified radii: {refused}"
        if self.certificate.radii is None:
            return ""
        asked, found = (sum(numbers) for numbers in list(zip(*counts, strict=True))[:2])
        first = f" of {found} of {asked} images, for lack of time" if found < asked else ""
        return f"certified radii are in {NORMS[certified_norm(self.module)]}{first}"
