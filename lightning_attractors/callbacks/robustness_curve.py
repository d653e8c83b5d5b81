"""How robust is what was just trained? One callback for every classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_attractors.callbacks.robustness_certified import FILES, certified_norm
from lightning_attractors.callbacks.robustness_data import Split, first_images, has_images, pairs, prepare
from lightning_attractors.callbacks.robustness_measuring import (
    LogitsFunction,
    PixelLogits,
    best_checkpoint,
    undisturbed,
)
from lightning_attractors.callbacks.robustness_run import Run
from lightning_attractors.errors import require
from lightning_attractors.robustness.attacks import seed_all
from lightning_attractors.robustness.choice import Attack, make_attacks
from lightning_attractors.robustness.targets import Target

_TRIAL_IMAGES = 2


class RobustnessCurve(Callback):
    """Attacks the images of a split, and reports how the accuracy falls with the strength of the attack.

    Runs after ``fit``, on the best checkpoint where there is one, and in ``test``. For every attack the run's
    folder gets ``robustness/<attack>.csv`` (accuracies per strength), ``<attack>_radii.csv`` (one row per
    image), ``<attack>.json`` (R and all that it depends on), ``<attack>.png`` and ``<attack>_gallery.png``;
    the loggers get figures, scalars ``robustness/<attack>/<name>`` and these as metrics of the
    hyper-parameters, so that TensorBoard compares runs.

    **Two modes.** ``fgsm_radius`` and ``pgd_radius`` search for the adversarial radius ρ of every image. A
    corruption, by its name, or an attack class, by its import path, is applied at each of ``strengths``; ρ is
    then the smallest strength that succeeds. ``accuracy`` is of all images; ``relative_accuracy``, the fit
    and its inflection point R are of those that are classified correctly with at least ``confidence``
    (Torvik, 2023).

    **Certificates.** A module may have ``certified_radii(images, labels) -> (B,)``, radii of images in [0, 1]
    within which they keep their labels, in the norm ``certified_norm``: ``linf``, as without it, or ``l2``.
    Then ``robustness/certified.{csv,json,png}`` has the certified accuracy against the radius, with scalars
    ``robustness/certified/<name>``, and the certified curve stands in the plot of every attack that goes no
    farther, in that norm, than its strength. Whatever the attack's own norm is, an image that is
    misclassified nearer than its radius raises :class:`BrokenCertificateError`, after all files are written.
    Certificates are about float32: in other precisions there is no certified curve.

    **Masked gradients.** Square and perturbations from a linear substitute attack a hundred images of the
    first batch beside PGD; if they do better, the radii are too large, and a sentence in log and JSON says
    so.

    Attacks act on images in [0, 1], in the trainer's precision, and are a function of ``seed`` and the images
    alone, not of the number of processes. The module is left as it was, and so are random numbers. Ctrl-C
    leaves what is done so far, with ``"complete": false``.

    Args:
        attacks: ``fgsm_radius``, ``pgd_radius``, ``replace_pixels`` or another of the corruptions, or an
            import path such as ``torchattacks.PGD``. Or a dict with that as ``class_path`` and, where wanted,
            ``init_args``, ``strengths``, ``strength`` (the argument that is swept, else ``eps``), ``name``.
        strengths: of the attacks that are swept and have none of their own.
        confidence: confidence from which on a correctly classified image counts, in [0, 1].
        max_images: how many images are attacked at most, at least 1; all of them with None.
        batch_size: how many images are attacked together, at least 1.
        split: ``test`` or ``val``.
        seed: of random attacks, at least 0.
        logits_fn: takes the module and inputs, gives logits (B, K); by default ``forward``.
        unpack_batch: takes a batch to images (B, C, H, W) and labels (B,); by default its first two elements.
        mean: of every channel (or one for all), where the batches hold (pixels − mean) / std.
        std: the same, above 0.
        masking: whether to check for masked gradients.
        after_fit: whether to run after ``fit``; the command line turns it off, as it tests the best
            checkpoint then.

    Attributes:
        results: the newest content of every attack's JSON file, by attack; on rank 0.
        certificate: the newest content of ``certified.json``, None without a certificate; on rank 0.

    Raises:
        SettingError: before training, if a setting is out of range or an attack, the batches or the module's
            logits do not fit.
        BrokenCertificateError: naming the images.
    """

    def __init__(
        self,
        attacks: Sequence[str | dict[str, Any]] = ("fgsm_radius", "pgd_radius"),
        strengths: Sequence[float] | None = None,
        confidence: float = 0.8,
        max_images: int | None = 1000,
        batch_size: int = 256,
        split: Split = "test",
        seed: int = 0,
        logits_fn: LogitsFunction | None = None,
        unpack_batch: Callable[[Any], tuple[Tensor, Tensor]] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        masking: bool = True,
        after_fit: bool = True,
    ) -> None:
        require(0 <= confidence <= 1, "confidence", confidence, "must be from 0 to 1")
        require(
            max_images is None or max_images >= 1, "max_images", max_images, "must be at least 1, or null"
        )
        require(batch_size >= 1, "batch_size", batch_size, "must be at least 1")
        require(split in ("test", "val"), "split", split, "must be test or val")
        require(seed >= 0, "seed", seed, "must be at least 0")
        require(all(value > 0 for value in std or ()), "std", std, "must be above 0")
        self.attacks: list[Attack] = make_attacks(attacks, strengths)
        free = FILES not in [attack.name for attack in self.attacks]
        require(free, "attacks", FILES, "must have another name, as the certificate's files have this one")
        self.confidence = confidence
        self.max_images = max_images
        self.batch_size = batch_size
        self.split: Split = split
        self.seed = seed
        self.logits_fn = logits_fn
        self.unpack_batch = unpack_batch or pairs
        self.mean, self.std = mean, std
        self.masking = masking
        self.after_fit = after_fit
        self.results: dict[str, dict[str, Any]] = {}
        self.certificate: dict[str, Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Try everything on two images, so that what does not fit is said before training."""
        certified_norm(pl_module)
        known = has_images(trainer, self.split)
        valid = "must be a split that this fit has a loader of; or set after_fit to false"
        require(known or not self.after_fit, "split", self.split, valid)
        if not known:
            return
        prepare(trainer, self.split)
        with undisturbed(pl_module, None):
            seed_all([self.seed])
            logits = self.logits(trainer, pl_module)
            inputs, labels = first_images(trainer, self.split, self.unpack_batch, _TRIAL_IMAGES)
            images, labels = logits.pixels(inputs), labels.to(pl_module.device)
            Target(logits, images, labels, self.batch_size).gradient_sign(images, labels)
            # An untrained module may have both wrong, where attacks do nothing: the classes are its own
            with torch.no_grad():
                classes = logits(images).argmax(dim=1)
            for attack in self.attacks:
                ends = tuple({min(attack.strengths), max(attack.strengths)} if attack.strengths else ())
                replace(attack, strengths=ends)(logits, images, classes, self.batch_size, [self.seed])

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.after_fit:
            best = best_checkpoint(trainer)
            self._measure(trainer, pl_module, best, best)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        known = has_images(trainer, self.split)
        require(known, "split", self.split, "must be a split that this test has a loader of")
        prepare(trainer, self.split)
        self._measure(trainer, pl_module, None, trainer.ckpt_path)  # type: ignore[arg-type]

    def _measure(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: str | None, weights: str | None
    ) -> None:
        """Attack the module with a checkpoint's weights, or its own; ``weights`` says whose they are."""
        self.results, self.certificate = {}, None
        with undisturbed(module, checkpoint):
            run = Run(self, trainer, module, weights)
            run.look()
            for attack in self.attacks:
                run.attack(attack)
        run.finish()

    def logits(self, trainer: L.Trainer, module: L.LightningModule) -> PixelLogits:
        """The module's logits of images in [0, 1]."""
        return PixelLogits(trainer, module, self.logits_fn, self.mean, self.std)
