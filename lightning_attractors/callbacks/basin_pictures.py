"""A picture of what is proved of a few images: the tube, the trap that it ends in, and the radii."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_attractors import contracts
from lightning_attractors.callbacks.basin_drawing import Basin, draw_basins
from lightning_attractors.callbacks.output import class_names, keep_figure, log_figure, run_folder
from lightning_attractors.callbacks.robustness_certificate import certificate_of
from lightning_attractors.callbacks.robustness_trainer import PixelLogits, pairs, undisturbed
from lightning_attractors.callbacks.traps import look_for_traps
from lightning_attractors.contracts import checked_radii, pictured, traps_of, tubes_of
from lightning_attractors.errors import SettingError, require
from lightning_attractors.norms import NormName
from lightning_attractors.robustness import pgd_radii

_ATTACK_STEPS = 150


class BasinPictures(Callback):
    """Draws after a test, to the loggers and ``figures/basins.{png,pdf}``, what is proved of a few images.

    For one image of each class, as far as they are classified correctly: the image; over time, the distance
    of its state from every attractor, with the tube that provably holds the states of all images within the
    certified radius, and the trap at the label's attractor; the certified radius beside the distance at which
    projected gradient descent finds another class. Images are from the first batch of the test, in [0, 1].

    The module needs ``certified_radii(images, labels)``, ``tubes(images, radii)``, ``states(images)``,
    ``equilibria() -> (K, N)``, one per class, and the step length ``dt``, as the attractor models have.

    Args:
        num_images: how many images to follow, at least 1.
        traps: whether to ask the module for its ``traps()``, which takes as long as in
            :class:`StabilityCertificate`, and is done once for both.
        attack_radius: how far the attack goes at most, in the norm of the certified radii, above 0.
        unpack_batch: takes a batch to images (B, C, H, W) and labels (B,); by default its first two elements.

    Raises:
        SettingError: before the test, if a setting is out of range or the module lacks one of the above.
    """

    def __init__(
        self,
        num_images: int = 3,
        traps: bool = False,
        attack_radius: float = 3.0,
        unpack_batch: Callable[[Any], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        require(num_images >= 1, "num_images", num_images, "must be at least 1")
        require(attack_radius > 0, "attack_radius", attack_radius, "must be above 0")
        self.num_images = num_images
        self.traps = traps
        self.attack_radius = attack_radius
        self.unpack_batch = unpack_batch or pairs
        self._batch: tuple[Tensor, Tensor] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        name = type(pl_module).__name__
        pictured(pl_module, "BasinPictures")
        for method, found in (
            ("certified_radii", contracts.certificate_of(pl_module)),
            ("tubes", tubes_of(pl_module)),
        ):
            valid = f"has no {method}; take it off the callbacks"
            require(found is not None, "BasinPictures", name, valid)
        known = traps_of(pl_module) is not None
        require(known or not self.traps, "BasinPictures.traps", self.traps, f"must be false: {name} has none")

    def on_test_batch_start(
        self, trainer: L.Trainer, _: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and dataloader_idx == 0:
            self._batch = self.unpack_batch(batch)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        folder = run_folder(trainer)  # which all ranks have to ask for
        if not trainer.is_global_zero:
            return
        try:
            with undisturbed(pl_module, None):
                basins, norm = self._basins(trainer, pl_module)
        except SettingError as error:
            rank_zero_warn(f"no picture of basins: {error}")
            return
        if not basins:
            rank_zero_warn("no picture of basins: no image of the first batch is classified correctly")
            return
        figure = draw_basins(basins, norm)
        log_figure(trainer, "basins", figure)
        keep_figure(trainer, folder, "basins", figure)

    def _basins(self, trainer: L.Trainer, module: L.LightningModule) -> tuple[list[Basin], NormName]:
        """What is to be drawn, and the norm of the radii.

        Raises:
            SettingError: if the module proves nothing of images.
        """
        logits = PixelLogits(trainer, module, None, None, None)
        images, labels = self._correct(logits)
        claimed = certificate_of(trainer, module, logits)
        valid = f"must hold for the run: {claimed.refused}"
        require(claimed.radii is not None, "certified_radii", type(module).__name__, valid)
        if not len(labels):
            return [], claimed.norm
        assert claimed.radii is not None
        certified = checked_radii(claimed.radii(images, labels), labels)
        attacked = self._attack(logits, images, labels, claimed.norm)
        distances, lengths = _flight(module, images, certified)
        traps = _trap_radii(module) if self.traps else None
        names = class_names(trainer)
        basins = [
            Basin(
                image=images[b].cpu(),
                name=names[label] if names else f"class {label}",
                label=label,
                times=torch.arange(len(lengths)) * pictured(module, "BasinPictures").dt,
                distances=distances[:, b],
                length=lengths[:, b],
                certified=float(certified[b]),
                attacked=float(attacked[b]),
                tried=self.attack_radius,
                trap=None if traps is None else float(traps[label]),
            )
            for b, label in enumerate(labels.tolist())
        ]
        return basins, claimed.norm

    def _correct(self, logits: PixelLogits) -> tuple[Tensor, Tensor]:
        """The first correctly classified image of each class, as far as they go."""
        assert self._batch is not None
        # clones: a test loop makes tensors of inference mode, through which there are no gradients
        images, labels = logits.pixels(self._batch[0].clone()), self._batch[1].clone()
        with torch.no_grad():
            right = logits(images).argmax(dim=1) == labels
        classes = labels[right].unique()[: self.num_images]
        rows = [int((right & (labels == label)).nonzero()[0]) for label in classes]
        return images[rows], labels[rows]

    def _attack(self, logits: PixelLogits, images: Tensor, labels: Tensor, norm: NormName) -> Tensor:
        size, most = self.attack_radius / _ATTACK_STEPS, self.attack_radius
        return pgd_radii(logits, images, labels, most, size, _ATTACK_STEPS, norm=norm).radii


@torch.no_grad()
def _flight(module: L.LightningModule, images: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (T, B, K) of the tubes' centres from the attractors, and the tubes' lengths (T, B)."""
    follower = tubes_of(module)
    assert follower is not None
    attractors = pictured(module, "BasinPictures").equilibria().double()
    distances, lengths = [], []
    for states, length in follower.tubes(images, radii.to(images.device)):
        distances.append(torch.cdist(states.double(), attractors).cpu())
        lengths.append(length.cpu())
    return torch.stack(distances), torch.stack(lengths)


def _trap_radii(module: L.LightningModule) -> Tensor:
    report = look_for_traps(module)
    require(not report.reason, "BasinPictures.traps", True, f"must be false: {report.reason}")
    return torch.tensor(report.radii)
