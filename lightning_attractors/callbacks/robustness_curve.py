"""How robust is what was just trained? One callback for every classifier."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from tqdm import tqdm

from lightning_attractors.callbacks import robustness_files as files
from lightning_attractors.callbacks.drawings import as_png
from lightning_attractors.callbacks.output import log_figure, log_scalars, run_folder, write_atomically
from lightning_attractors.callbacks.robustness_data import (
    Batch,
    Split,
    batches,
    first_images,
    has_images,
    pairs,
    prepare,
)
from lightning_attractors.callbacks.robustness_measuring import (
    LogitsFunction,
    PixelLogits,
    best_checkpoint,
    isolate_safely,
    together,
    undisturbed,
)
from lightning_attractors.errors import SettingError, require
from lightning_attractors.robustness.attacks import Outcome, RadiusAttack, seed_all
from lightning_attractors.robustness.choice import Attack, make_attacks
from lightning_attractors.robustness.logistic import LogisticFit, fit_logistic
from lightning_attractors.robustness.masking import MaskingCheck, check_masking
from lightning_attractors.robustness.pgd import pgd_radii
from lightning_attractors.robustness.records import Clean, Records, curve, fit
from lightning_attractors.robustness.targets import Target

_GALLERY = 5
_MASKING_IMAGES = 100
_TRIAL_IMAGES = 2
_AGREEMENT = 0.05


class BrokenCertificateError(RuntimeError):
    """An image was misclassified within the radius for which its class is certified."""


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

    **Certificates.** Where the module has ``certified_radii(images, labels) -> (B,)``, L∞ radii of images in
    [0, 1], the certified curve stands in the same plot, and an attacked image that is misclassified within
    its radius raises :class:`BrokenCertificateError`, after all files are written. They are about float32: in
    other precisions there is no certified curve.

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
        results: the newest content of every JSON file, by attack; on rank 0.

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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Try everything on two images, so that what does not fit is said before training."""
        known = has_images(trainer, self.split)
        valid = "must be a split that this fit has a loader of; or set after_fit to false"
        require(known or not self.after_fit, "split", self.split, valid)
        if not known:
            return
        prepare(trainer, self.split)
        with undisturbed(pl_module, None):
            seed_all([self.seed])
            logits = self._logits(trainer, pl_module)
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
        self.results = {}
        with undisturbed(module, checkpoint):
            run = _Run(self, trainer, module, weights)
            run.look()
            for attack in self.attacks:
                run.attack(attack)
        run.finish()

    def _logits(self, trainer: L.Trainer, module: L.LightningModule) -> PixelLogits:
        return PixelLogits(trainer, module, self.logits_fn, self.mean, self.std)


class _Run:
    """One measurement of one module by a :class:`RobustnessCurve`, on one of the ranks."""

    def __init__(
        self, settings: RobustnessCurve, trainer: L.Trainer, module: L.LightningModule, weights: str | None
    ) -> None:
        self.settings, self.trainer, self.module, self.weights = settings, trainer, module, weights
        self.folder: Path = run_folder(trainer) / "robustness"
        self.logits = settings._logits(trainer, module)
        self.parts: list[tuple[Batch, Clean]] = []
        self.masking: MaskingCheck | None = None
        self.no_certificate = ""
        self.broken: dict[str, list[int]] = {}
        self.metrics: dict[str, float] = {}
        self.quick = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]

    def look(self) -> None:
        """Go over the clean images of this rank, and over the question whether gradients are masked."""
        counts = together(self.trainer, self._look)
        require(sum(counts) > 0, "split", self.settings.split, "must have images")
        if self.masking is not None:
            (rank_zero_warn if self.masking.masked else rank_zero_info)(self.masking.sentence)

    def attack(self, attack: Attack) -> None:
        """Attack all images, and write what is found; what there is of it when interrupted."""
        started = time.monotonic()
        records: list[Records] = []
        examples: list[files.Example] = []
        try:
            found = together(self.trainer, lambda: self._attack(attack, records, examples))
        except KeyboardInterrupt:
            # The other ranks are being interrupted too: nothing is gathered
            if records and self.trainer.is_global_zero:
                self._report(attack, Records.joined(records), examples, complete=False)
            raise
        everything = Records.joined([part for parts, _ in found for part in parts])
        if self.trainer.is_global_zero:
            shown = sorted((example for _, own in found for example in own), key=lambda example: example[0])
            summary = self._report(attack, everything, shown[:_GALLERY], complete=True)
            rank_zero_info(_line(summary, time.monotonic() - started))
        breaches = everything.breaches().tolist()
        if breaches:
            self.broken[attack.name] = breaches

    def finish(self) -> None:
        """Send the metrics to the loggers, and fail if a certificate was broken."""
        if self.trainer.is_global_zero and self.metrics:
            log_scalars(self.trainer, self.metrics)
            for logger in self.trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.log_hyperparams(dict(self.module.hparams_initial), self.metrics)
        if self.broken:
            listed = "; ".join(f"{name}: images {indices[:10]}" for name, indices in self.broken.items())
            raise BrokenCertificateError(f"certified_radii is wrong, misclassified within it are {listed}")

    def _look(self) -> int:
        settings = self.settings
        most = 8 if self.quick else settings.max_images or sys.maxsize
        seed_all([settings.seed])  # loaders that shuffle serve the same images on every rank
        given = batches(self.trainer, settings.split, settings.unpack_batch, settings.batch_size, most)
        for number, inputs, labels in given:
            if number % self.trainer.world_size == self.trainer.global_rank:
                images = self.logits.pixels(inputs).cpu()
                with isolate_safely():  # what the loaders serve next is not this rank's own business
                    self.parts.append(((number, images, labels), self._clean(number, images, labels)))
        if settings.masking and self.trainer.is_global_zero and self.parts:
            (_, images, labels), clean = self.parts[0]
            rows = clean.correct.nonzero().squeeze(1)[: 8 if self.quick else _MASKING_IMAGES]
            rest = (~clean.correct).nonzero().squeeze(1)[: len(rows)]
            chosen = torch.cat([rows, rest])
            device = self.module.device
            self.masking = check_masking(
                *(self.logits, images[chosen].to(device), labels[chosen].to(device)),
                batch_size=settings.batch_size,
                seed=settings.seed,
            )
        return len(self.parts)

    @torch.no_grad()
    def _clean(self, number: int, images: Tensor, labels: Tensor) -> Clean:
        device = self.module.device
        seed_all([self.settings.seed, number])
        logits = self.logits(images.to(device))
        bad = int(logits.isnan().any(dim=1).sum())
        require(bad == 0, "logits_fn", self.logits.__name__, f"must give logits without nan: {bad} images")
        confidence, classes = logits.double().softmax(dim=1).max(dim=1)
        return Clean(
            index=number * self.settings.batch_size + torch.arange(len(labels)),
            labels=labels,
            confidence=confidence.cpu(),
            correct=classes.cpu() == labels,
            certified=self._certified(images.to(device), labels.to(device)),
        )

    def _certified(self, images: Tensor, labels: Tensor) -> Tensor:
        unknown = torch.full((len(labels),), torch.nan, dtype=torch.float64)
        certify: Any = getattr(self.module, "certified_radii", None)
        if certify is None:
            return unknown
        exact = torch.get_float32_matmul_precision() == "highest"
        if self.trainer.precision not in ("32-true", "64-true") or not exact:
            self.no_certificate = f"not in precision {self.trainer.precision} with these matrix products"
            return unknown
        try:
            radii: Tensor = certify(images, labels)
        except SettingError as error:
            self.no_certificate = str(error)
            return unknown
        shape = tuple(getattr(radii, "shape", ()))
        valid = f"must give radii of shape {tuple(labels.shape)}, none of them nan"
        require(shape == labels.shape and not radii.isnan().any(), "certified_radii", shape, valid)
        return radii.detach().double().cpu()

    def _attack(
        self, attack: Attack, records: list[Records], examples: list[files.Example]
    ) -> tuple[list[Records], list[files.Example]]:
        settings, device = self.settings, self.module.device
        silent = not self.trainer.is_global_zero or self.trainer.progress_bar_callback is None
        for (number, images, labels), clean in tqdm(
            self.parts, desc=attack.name, unit="batch", leave=False, disable=silent or None
        ):
            outcome = attack(
                *(self.logits, images.to(device), labels.to(device)),
                batch_size=settings.batch_size,
                key=[settings.seed, number],
            )
            records.append(Records.of(clean, outcome))
            examples.extend(self._examples(clean, images, outcome, _GALLERY - len(examples)))
        return records, examples

    @torch.no_grad()
    def _examples(self, clean: Clean, images: Tensor, outcome: Outcome, most: int) -> list[files.Example]:
        """The first images that count and were broken, for the gallery."""
        counts = clean.correct & (clean.confidence >= self.settings.confidence)
        rows = (counts & outcome.radii.isfinite().cpu()).nonzero().squeeze(1)[:most]
        if not len(rows):
            return []
        attacked = outcome.adversarial.cpu()[rows]
        before, after = (
            files.titles(self.logits(part.to(self.module.device)).double().softmax(dim=1))
            for part in (images[rows], attacked)
        )
        return list(zip(clean.index[rows].tolist(), images[rows], attacked, before, after, strict=True))

    def _report(
        self, attack: Attack, records: Records, examples: list[files.Example], complete: bool
    ) -> dict[str, Any]:
        confidence = self.settings.confidence
        fitted, reason = fit(records, confidence, attack.reach)
        found = curve(records, attack.strengths or files.grid(records), confidence)
        summary = self._summary(attack, records, fitted, reason, complete)
        self.settings.results[attack.name] = summary
        if summary["images"]["gradient_vanished"]:
            rank_zero_warn(f"{attack.name}: {summary['masking']['sentence']}")
        if not summary["fitted"]:
            rank_zero_warn(f"{attack.name}: no R, as {reason}")
        counted = int(records.confident(confidence).sum())
        picture = files.draw_curve(attack.name, found, fitted, confidence, counted)
        log_figure(self.trainer, f"robustness/{attack.name}", picture)
        contents: dict[str, str | bytes] = {
            ".csv": files.curve_table(found, fitted),
            "_radii.csv": files.radii_table(records),
            ".json": json.dumps(summary, indent=2) + "\n",
            ".png": as_png(picture),
        }
        if examples:
            gallery = files.draw_gallery(examples)
            log_figure(self.trainer, f"robustness/{attack.name}_gallery", gallery)
            contents["_gallery.png"] = as_png(gallery)
        if not self.quick:
            for ending, content in contents.items():
                write_atomically(self.folder / f"{attack.name}{ending}", content)
        self.metrics.update(_metrics(attack.name, summary))
        return summary

    def _summary(
        self, attack: Attack, records: Records, fitted: LogisticFit | None, reason: str, complete: bool
    ) -> dict[str, Any]:
        counts = records.confident(self.settings.confidence)
        radii = records.radii[counts]
        vanished = int(records.vanished.sum())
        summary = {
            "attack": attack.name,
            "mode": "radius" if isinstance(attack, RadiusAttack) else "strengths",
            **files.fit_summary(fitted, reason),
            "accuracy": float(records.correct.double().mean()),
            "median_radius": float(radii.median()) if len(radii) else None,
            "images": {
                "all": len(records),
                "correct": int(records.correct.sum()),
                "counted": int(counts.sum()),
                "broken": int(radii.isfinite().sum()),
                "gradient_vanished": vanished,
            },
            **self._steps(attack, records.steps[counts], fitted),
            "certificate": self._certificate(records, counts),
            "masking": self._masking(vanished),
            "settings": self._settings(attack),
            "model": type(self.module).__name__,
            "checkpoint": self.weights and Path(self.weights).name,
            "stage": self.trainer.state.fn and self.trainer.state.fn.value,
            "epoch": self.trainer.current_epoch,
            "global_step": self.trainer.global_step,
            "precision": str(self.trainer.precision),
            "versions": files.versions(),
            "complete": complete,
        }
        ready: dict[str, Any] = files.json_ready(summary)
        return ready

    def _steps(self, attack: Attack, steps: Tensor, fitted: LogisticFit | None) -> dict[str, Any]:
        """R of the numbers of steps, and ε times it, which is R if every step went as far as it could."""
        if not (isinstance(attack, RadiusAttack) and attack.search is pgd_radii and len(steps)):
            return {}
        tried = range(1, attack.arguments["steps"] + 1)
        in_steps = fit_logistic(torch.where(steps < 0, torch.inf, steps.double()), tried)
        size = attack.arguments["step_size"]
        product = size * in_steps.R
        agrees = None
        if fitted is not None and fitted.fitted and in_steps.fitted:
            agrees = abs(fitted.R - product) <= _AGREEMENT * fitted.R
        found = {"R": in_steps.R, "step_size": size, "R_times_step_size": product}
        return {"steps": {**found, "agrees_within_5_percent": agrees}}

    def _certificate(self, records: Records, counts: Tensor) -> dict[str, Any] | None:
        if not records.has_certificate:
            return {"reason": self.no_certificate} if self.no_certificate else None
        certified = records.certified[counts]
        median = float(certified.median()) if len(certified) else None
        return {"median_radius": median, "misclassified_within": records.breaches().tolist()}

    def _masking(self, vanished: int) -> dict[str, Any] | None:
        check = self.masking
        found = asdict(check) | {"masked": check.masked, "sentence": check.sentence} if check else None
        if vanished:
            sentence = f"Gradients ARE masked: in this attack they vanished at {vanished} images."
            found = {**(found or {}), "masked": True, "sentence": sentence}
        return found

    def _settings(self, attack: Attack) -> dict[str, Any]:
        names = ("confidence", "max_images", "batch_size", "split", "seed", "mean", "std")
        own = {"arguments": getattr(attack, "arguments", {}), "strengths": attack.strengths}
        return {**own, **{name: getattr(self.settings, name) for name in names}}


def _metrics(name: str, summary: dict[str, Any]) -> dict[str, float]:
    """The scalars of an attack that have a value."""
    values = {key: summary[key] for key in ("R", "uncertainty", "accuracy", "median_radius")}
    values["R2"] = summary.get("R2")
    return {f"robustness/{name}/{key}": value for key, value in values.items() if value is not None}


def _line(summary: dict[str, Any], seconds: float) -> str:
    images = summary["images"]
    result = f"R {summary['R']:.4g} ± {summary['uncertainty']:.1g}" if summary["fitted"] else "no R"
    steps = summary.get("steps", {})
    if steps.get("agrees_within_5_percent") is False:
        result += f", but step size × R in steps is {steps['R_times_step_size']:.4g}"
    return (
        f"robustness  {summary['attack']}  {seconds:.1f} s  {images['all']} images, {images['counted']} count"
        f"  accuracy {summary['accuracy']:.4g}  {result}"
    )
