"""How robust is what was just trained? One callback for every classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_attractors.callbacks.output import class_names, log_figure, log_scalars, run_folder
from lightning_attractors.callbacks.robustness_certificate import certificate_of
from lightning_attractors.callbacks.robustness_trainer import (
    LogitsFunction,
    PixelLogits,
    Split,
    batches,
    best_checkpoint,
    choose_split,
    circumstances,
    fingerprint,
    first_images,
    pairs,
    together,
    undisturbed,
)
from lightning_attractors.errors import require
from lightning_attractors.robustness import (
    SMOOTHED,
    AttackReport,
    BrokenCertificateError,
    Choice,
    KeptVotes,
    MaskingCheck,
    MeasureSettings,
    Result,
    Share,
    SmoothedReport,
    Smoothing,
    draw,
    make_attacks,
    measure,
    refuse_names_of_certificates,
    rehearse,
    result_line,
    scalars,
    write_result,
)

__all__ = ["BrokenCertificateError", "RobustnessCurve"]

_TRIAL_IMAGES, _DRY_RUN_IMAGES = 2, 8
# Of a run its siblings, and its tests; of a test its siblings, and its run.
_BESIDE = ("version_*/robustness", "version_*/test*/robustness", "test*/robustness", "robustness")


class RobustnessCurve(Callback):
    """Attacks the images of a split, and reports how the accuracy falls with the strength of the attack.

    Runs after ``fit``, on the best checkpoint where there is one, and in ``test``. A fit that has test images
    measures these, another its validation images, and says so in every line and file; one with neither
    leaves it to ``trainer.test``. For every attack the run's folder gets ``robustness/<attack>.csv``
    (accuracies per strength), ``<attack>_radii.csv`` (one row per image), ``<attack>.json`` (R and all that
    it depends on), ``<attack>.png`` and ``<attack>_gallery.png``; the loggers get figures, scalars
    ``robustness/<attack>/<name>`` and these as metrics of the hyper-parameters, so that TensorBoard compares
    runs.

    The run's folder is the trainer's ``log_dir``, with Lightning's default logger
    ``lightning_logs/version_<n>``; without a logger it is ``default_root_dir``, for all runs the same one.
    A fit and a test by the same trainer have one folder, where the test writes over what the fit has left. A
    new trainer has a new version: after ``fit``, that leaves both.

    **Two modes.** ``fgsm_radius`` and ``pgd_radius`` search for the adversarial radius ρ of every image, in
    L∞ unless their ``init_args`` have the norm ``l2``. A corruption, by its name, or an attack class, by its
    import path, is applied at each of ``strengths``; ρ is then the smallest strength that succeeds.
    ``accuracy`` is of all images; ``relative_accuracy``, the fit and its inflection point R are of those that
    are classified correctly with at least ``confidence`` (Torvik, 2023). Where there is no R, or one that
    does not count, ``reason`` and ``advice`` say why and what would give one; ``accuracy_at`` the
    :func:`~lightning_attractors.robustness.usual_strengths` and ``median_radius_all`` are of all images, and
    always there.

    **Certificates.** A module may have ``certified_radii(images, labels) -> (B,)``, radii of images in [0, 1]
    within which they keep their labels, in the norm ``certified_norm``: ``linf``, as without it, or ``l2``.
    They are of images in [0, 1], or in ``certified_box``, a pair of ends: attacks that leave it break
    nothing. They are of ``forward``: with a ``logits_fn`` there are none. With ``mean`` and ``std`` they are
    asked for the normalised images and scaled by the smallest std, if ``certified_box`` holds these, or else
    there are none.
    Then ``robustness/certified.{csv,json,png}`` has the certified accuracy against the radius, with scalars
    ``robustness/certified/<name>``, and the certified curve stands in the plot of every attack that goes no
    farther, in that norm, than its strength. Whatever the attack's own norm is, an image that is
    misclassified nearer than its radius raises :class:`BrokenCertificateError`, after all files are written.
    Certificates are about float32: in other precisions there is no certified curve.

    **Smoothing.** With ``smoothing`` any module gets L2 radii of its smoothed classifier (Cohen et al.,
    2019), whose class is the one that the module gives most often of the image with N(0, σ²) noise; each
    holds with probability 1 − α. ``robustness/smoothed.csv`` has one row per image (``predicted`` −1 where it
    abstains), ``smoothed.json`` the certified accuracies, ``smoothed.png`` the curve, which stands in the
    plots of attacks in L2 too; scalars are ``robustness/smoothed/<name>``. Noisy images leave [0, 1]. It is
    another classifier than the one that is attacked, so no attack breaks its radii. What is done when a run
    is interrupted is in ``smoothed_votes_<rank>.json``, and the next run of the same module, weights,
    settings and images goes on from it, in the same folder or in one of another run or test beside it.

    **Masked gradients.** Square and perturbations from a linear substitute attack a hundred images of the
    first batch beside PGD; if they do better, the radii are too large, and a sentence in log and JSON says
    so.

    Attacks act on images in [0, 1], in the trainer's precision, and are a function of ``seed`` and the images
    alone, not of the number of processes. The module is left as it was, and so are random numbers. Ctrl-C
    leaves what is done so far, with ``"complete": false``.

    Args:
        attacks: ``fgsm_radius``, ``pgd_radius``, ``replace_pixels`` or another of the corruptions, an
            import path such as ``torchattacks.PGD``, or an attack of one's own, a callable ``(logits_fn,
            images, labels, strength) -> images``. Or a dict with that as ``class_path`` and, where wanted,
            ``init_args``, ``strengths``, ``strength`` (the argument that is swept, else ``eps``), ``name``.
        strengths: of the attacks that are swept and have none of their own; by default, of attacks in a norm
            that is known, such as ``PGD("l2")``, some up to 0.3 in L∞, and to 2 in L2.
        confidence: confidence from which on a correctly classified image counts, in [0, 1].
        max_images: how many images are attacked at most, at least 1; all of them with None.
        batch_size: how many images are attacked together, at least 1.
        split: ``test`` or ``val``; by default the test images where there are any, else those of validation.
        seed: of random attacks, at least 0.
        logits_fn: takes the module and inputs, gives logits (B, K); by default ``forward``.
        unpack_batch: takes a batch to images (B, C, H, W) and labels (B,); by default its first two elements.
        mean: of every channel, or a number for all, where the batches hold (pixels − mean) / std.
        std: the same, above 0.
        masking: whether to check for masked gradients.
        after_fit: whether to run after ``fit``; the command line turns it off, as it tests the best
            checkpoint then.
        smoothing: σ, samples and α, for radii of the smoothed classifier; none without it.

    Attributes:
        results: the newest content of every attack's JSON file, by attack; on rank 0.
        certificate: the newest content of ``certified.json``, None without a certificate; on rank 0.
        smoothed: the newest content of ``smoothed.json``, None without smoothing; on rank 0.

    Raises:
        SettingError: before training, if a setting is out of range or an attack, the batches or the module's
            logits do not fit.
        BrokenCertificateError: naming the images.
    """

    def __init__(
        self,
        attacks: Sequence[Choice] = ("fgsm_radius", "pgd_radius"),
        strengths: Sequence[float] | None = None,
        confidence: float = 0.8,
        max_images: int | None = 1000,
        batch_size: int = 256,
        split: Split | None = None,
        seed: int = 0,
        logits_fn: LogitsFunction | None = None,
        unpack_batch: Callable[[Any], tuple[Tensor, Tensor]] | None = None,
        mean: Sequence[float] | float | None = None,
        std: Sequence[float] | float | None = None,
        masking: bool = True,
        after_fit: bool = True,
        smoothing: Smoothing | None = None,
    ) -> None:
        self.settings = MeasureSettings(confidence, max_images, batch_size, seed, masking, smoothing)
        valid = "must be test or val, or null for the test images where there are any"
        require(split in ("test", "val", None), "split", split, valid)
        self.mean, self.std = ([value] if isinstance(value, int | float) else value for value in (mean, std))
        require(all(value > 0 for value in self.std or ()), "std", std, "must be above 0")
        self.attacks = make_attacks(attacks, strengths)
        refuse_names_of_certificates(self.attacks)
        self.split = split
        self._measured: Split | None = None  # in the present fit or test
        self.logits_fn = logits_fn
        self.unpack_batch = unpack_batch or pairs
        self.after_fit = after_fit
        self.results: dict[str, dict[str, Any]] = {}
        self.certificate: dict[str, Any] | None = None
        self.smoothed: dict[str, Any] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        curves = [one for one in trainer.callbacks if isinstance(one, RobustnessCurve)]  # type: ignore[attr-defined]
        names = [attack.name for curve in curves for attack in curve.attacks]
        names += [SMOOTHED for curve in curves if curve.settings.smoothing is not None]
        twice = sorted({name for name in names if names.count(name) > 1})
        valid = "must be in one RobustnessCurve only: two would write the same files"
        require(not twice, "RobustnessCurve.attacks", twice, valid)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Try everything on two images, so that what does not fit is said before training."""
        certificate_of(trainer, pl_module, self._logits(trainer, pl_module))
        self._measured = chosen = choose_split(trainer, self.split)
        if chosen is None:
            if self.after_fit:
                wanted = {"test": "test", "val": "validation", None: "test or validation"}[self.split]
                rank_zero_info(f"RobustnessCurve: this fit has no {wanted} images, so it waits for test")
            return
        with undisturbed(pl_module, None):
            logits = self._logits(trainer, pl_module)
            inputs, labels = first_images(trainer, chosen, self.unpack_batch, _TRIAL_IMAGES)
            images, labels = logits.pixels(inputs), labels.to(pl_module.device)
            rehearse(logits, images, labels, self.attacks, self.settings)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.after_fit and self._measured is not None:
            best = best_checkpoint(trainer)
            self._measure(trainer, pl_module, best, best)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._measured = choose_split(trainer, self.split)
        valid = "must be a split that this test has a loader of"
        require(self._measured is not None, "split", self.split, valid)
        self._measure(trainer, pl_module, None, trainer.ckpt_path)  # type: ignore[arg-type]

    def _measure(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: str | None, weights: str | None
    ) -> None:
        """Attack the module with a checkpoint's weights, or its own; ``weights`` says whose they are."""
        self.results, self.certificate, self.smoothed = {}, None, None
        settings, metrics = self.settings, dict[str, float]()
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            settings = replace(settings, max_images=_DRY_RUN_IMAGES)
        folder = run_folder(trainer) / "robustness"
        split = self._measured
        assert split is not None
        about, memory = {"split": split, **circumstances(trainer, module, weights)}, None
        with undisturbed(module, checkpoint):
            logits = self._logits(trainer, module)
            if settings.smoothing is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                others = chain.from_iterable(map(folder.parents[1].glob, _BESIDE))
                memory = KeptVotes(folder, fingerprint(module, logits), trainer.global_rank, others)
            report = measure(
                logits,
                self._pixels(trainer, logits, split),
                self.attacks,
                settings=settings,
                certificate=certificate_of(trainer, module, logits),
                device=module.device,
                on_result=lambda found: metrics.update(self._leave(found, trainer, folder, about)),
                share=Share(trainer.global_rank, trainer.world_size, lambda work: together(trainer, work)),
                progress=trainer.is_global_zero and trainer.progress_bar_callback is not None,
                memory=memory,
            )
        if trainer.is_global_zero and metrics:
            log_scalars(trainer, metrics)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    own = {k: value for k, value in module.hparams_initial.items() if k != "_class_path"}
                    logger.log_hyperparams(own, metrics)
        report.require_certificate()

    def _leave(
        self, found: Result, trainer: L.Trainer, folder: Path, about: dict[str, Any]
    ) -> dict[str, float]:
        """Leave a result in memory, in the folder and in words, and give its metrics."""
        if isinstance(found, MaskingCheck):
            (rank_zero_warn if found.masked else rank_zero_info)(found.sentence)
            return {}
        summary = found.summary(self._recorded(), about)
        if isinstance(found, AttackReport):
            self.results[found.name] = summary
            for text in found.warnings:
                rank_zero_warn(text)
        elif isinstance(found, SmoothedReport):
            self.smoothed = summary
            rank_zero_info(found.line(summary))
        else:
            self.certificate = summary
        figures = draw(found, {**summary, "class_names": class_names(trainer)})
        for ending, figure in figures.items():
            log_figure(trainer, f"robustness/{found.name}{ending}", figure)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            write_result(found, folder, summary, figures)
        if isinstance(found, AttackReport) and found.complete:
            rank_zero_info(result_line(summary, found.seconds))
        return scalars(found.name, summary)

    def _logits(self, trainer: L.Trainer, module: L.LightningModule) -> PixelLogits:
        """The module's logits of images in [0, 1]."""
        return PixelLogits(trainer, module, self.logits_fn, self.mean, self.std)

    def _pixels(
        self, trainer: L.Trainer, logits: PixelLogits, split: Split
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Images in [0, 1] and labels of the split."""
        count = 0
        for inputs, labels in batches(trainer, split, self.unpack_batch):
            count += len(labels)
            yield logits.pixels(inputs).cpu(), labels
        require(count > 0, "split", split, "must have images")

    def _recorded(self) -> dict[str, Any]:
        """The settings that are written down."""
        names = ("confidence", "max_images", "batch_size", "split", "seed", "mean", "std")
        values = {**asdict(self.settings), "split": self._measured, "mean": self.mean, "std": self.std}
        return {name: values[name] for name in names}
