"""What a module proves of the function that a robustness curve attacks: all of it, or nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import lightning as L
import torch
from torch import Tensor

from lightning_attractors import contracts
from lightning_attractors.callbacks.robustness_trainer import PixelLogits
from lightning_attractors.certificates import UNIT, sums_in_float32
from lightning_attractors.robustness import Certificate

Radii = Callable[[Tensor, Tensor], Tensor]


def certificate_of(trainer: L.Trainer, module: L.LightningModule, logits: PixelLogits) -> Certificate:
    """What the module claims to be proved of what is attacked, in the norm ``certified_norm``.

    Raises:
        SettingError: if the norm is unknown, or the box is none.
    """
    claimed = contracts.certificate_of(module)
    if claimed is None:
        return Certificate(norm=contracts.certified_norm(module))
    refused = ""
    if trainer.precision not in ("32-true", "64-true"):
        refused = f"not in precision {trainer.precision}: set trainer.precision=32-true"
    elif not sums_in_float32(module.device):
        refused = "not with matrix products or convolutions in TF32 or bfloat16: see torch.backends"
    elif logits.function is not None:
        refused = f"certified_radii is of forward, and attacked is the logits_fn {logits.__name__}"
    elif logits.normalises:
        refused = _why_not_normalised(claimed.box, logits)
    if refused:
        return Certificate(None, claimed.norm, refused)
    if not logits.normalises:
        return Certificate(claimed.certify, claimed.norm, box=claimed.box or (0.0, 1.0))
    everywhere = (-math.inf, math.inf)
    box = everywhere if claimed.box == everywhere else (0.0, 1.0)
    return Certificate(_normalised_radii(claimed, logits), claimed.norm, box=box)


def _why_not_normalised(box: tuple[float, float] | None, logits: PixelLogits) -> str:
    """Why radii say nothing of normalised images in [0, 1]; empty if they do."""
    if box is None:
        return "certified_radii is of images in [0, 1], not of (pixels − mean) / std: see certified_box"
    # rounding keeps the order, so that these are the ends in float32 too
    ends = torch.cat([logits.normalised(torch.full_like(logits.mean, end)).flatten() for end in (0.0, 1.0)])
    low, high = (float(end) for end in ends.aminmax())
    if box[0] <= low and high <= box[1]:
        return ""
    return f"certified_radii is of inputs in {list(box)}, those of mean and std in [{low:.4g}, {high:.4g}]"


def _normalised_radii(
    claimed: contracts.Certificate, logits: PixelLogits
) -> Callable[[Tensor, Tensor], Tensor]:
    """Radii of images x from those of inputs (x − mean) / std, which move by at most 1/min(std) as much."""

    def radii(images: Tensor, labels: Tensor) -> Tensor:
        inputs = logits.normalised(images)
        found = claimed.certify(logits.precision.convert_input(inputs), labels)
        # both inputs, of the image and of the moved one, are rounded twice
        sizes = (1 + logits.mean.abs().double()) / logits.std.double()
        rounding = (
            2 * 4 * UNIT * float(sizes.max()) * (inputs[0].numel() ** 0.5 if claimed.norm == "l2" else 1)
        )
        return (found.double() - rounding).clamp(min=0) * (float(logits.std.min()) * (1 - 1e-9))

    return radii
