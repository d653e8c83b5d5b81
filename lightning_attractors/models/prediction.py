"""What a model says of an image in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_attractors.certificates import sums_in_float32
from lightning_attractors.contracts import certificate_of, checked_radii
from lightning_attractors.errors import SettingError, require
from lightning_attractors.image_files import read_image
from lightning_attractors.models.evaluation_mode import evaluating
from lightning_attractors.norms import NormName

if TYPE_CHECKING:
    from lightning_attractors.models.base import Classifier


@dataclass(frozen=True)
class Prediction:
    """What a model says of an image.

    Attributes:
        label: number of the predicted class.
        class_name: its name, or its number in digits where the model knows no names.
        confidence: its softmax probability, in [0, 1].
        certified_radius: how far, in ``norm``, images with pixels in [0, 1] may be from this one and provably
            have the same class; 0 where nothing is proved, None where the model has no certificate.
        norm: that of the radius, ``linf`` or ``l2``; None without one.
    """

    label: int
    class_name: str
    confidence: float
    certified_radius: float | None = None
    norm: NormName | None = None


@torch.no_grad()
def predict_file(model: Classifier, path: str | Path) -> Prediction:
    """What a model says of the image in a file: see ``predict_image`` of the model.

    Raises:
        SettingError: as :func:`~lightning_attractors.image_files.read_image`; if the model does not know the
            shape of its images.
    """
    shape: Any = model.hparams.get("image_shape")
    valid = f"must be a setting of {type(model).__name__}, for images to be brought to it"
    require(shape is not None, "image_shape", shape, valid)
    require(shape[0] in (1, 3), "image_shape", tuple(shape), "must have 1 or 3 channels, for image files")
    image = (
        (read_image(path, tuple(shape)).float() / 255)[None]
        .to(model.device)
        .to(next(model.parameters(), torch.zeros(())).dtype)
    )
    with evaluating(model):
        confidence, label = model(image).double().softmax(dim=1).max(dim=1)
        radius, norm = _radius(model, image, label)
    number = int(label)
    name = model.class_names[number] if number < len(model.class_names) else str(number)
    return Prediction(number, name, float(confidence), radius, norm)


def _radius(model: Classifier, image: Tensor, label: Tensor) -> tuple[float | None, NormName | None]:
    """The certified radius of an image (1, C, H, W) and its norm, where the model has a certificate now."""
    certificate = certificate_of(model)
    if certificate is None or not sums_in_float32(model.device):
        return None, None
    try:
        radii = certificate.certify(image, label)
    except SettingError:  # says why there is none, as for a model with noise
        return None, None
    return float(checked_radii(radii, label)), certificate.norm
