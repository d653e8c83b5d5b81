"""One measurement of one module by a :class:`~lightning_attractors.callbacks.RobustnessCurve`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from tqdm import tqdm

from lightning_attractors.callbacks import robustness_certified as certificate
from lightning_attractors.callbacks import robustness_files as files
from lightning_attractors.callbacks.drawings import as_png
from lightning_attractors.callbacks.output import log_figure, log_scalars, run_folder, write_atomically
from lightning_attractors.callbacks.robustness_data import Batch, batches
from lightning_attractors.callbacks.robustness_measuring import isolate_safely, together
from lightning_attractors.errors import require
from lightning_attractors.norms import NORMS
from lightning_attractors.robustness.attacks import Outcome, RadiusAttack, seed_all
from lightning_attractors.robustness.choice import Attack
from lightning_attractors.robustness.logistic import LogisticFit, fit_logistic
from lightning_attractors.robustness.masking import MaskingCheck, check_masking
from lightning_attractors.robustness.pgd import pgd_radii
from lightning_attractors.robustness.records import Clean, Records, curve, fit

if TYPE_CHECKING:
    from lightning_attractors.callbacks.robustness_curve import RobustnessCurve

_GALLERY = 5
_MASKING_IMAGES = 100
_AGREEMENT = 0.05


class BrokenCertificateError(RuntimeError):
    """An image was misclassified within the radius for which its class is certified."""


class Run:
    """One measurement of one module by a :class:`RobustnessCurve`, on one of the ranks."""

    def __init__(
        self, settings: RobustnessCurve, trainer: L.Trainer, module: L.LightningModule, weights: str | None
    ) -> None:
        self.settings, self.trainer, self.module, self.weights = settings, trainer, module, weights
        self.folder: Path = run_folder(trainer) / "robustness"
        self.logits = settings.logits(trainer, module)
        self.norm = certificate.certified_norm(module)
        self.parts: list[tuple[Batch, Clean]] = []
        self.masking: MaskingCheck | None = None
        self.no_certificate = ""
        self.broken: dict[str, list[int]] = {}
        self.metrics: dict[str, float] = {}
        self.quick = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]

    def look(self) -> None:
        """Go over the clean images and their certificate, and the question whether gradients are masked."""
        found = together(self.trainer, self._look)
        parts = [part for own in found for part in own]
        require(len(parts) > 0, "split", self.settings.split, "must have images")
        everything = Clean.joined(parts)
        if self.trainer.is_global_zero and everything.has_certificate:
            self._report_certificate(everything)
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
            text = f"certified_radii is wrong, misclassified within it in {NORMS[self.norm]} are {listed}"
            raise BrokenCertificateError(text)

    def _look(self) -> list[Clean]:
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
        return [clean for _, clean in self.parts]

    @torch.no_grad()
    def _clean(self, number: int, images: Tensor, labels: Tensor) -> Clean:
        device = self.module.device
        seed_all([self.settings.seed, number])
        logits = self.logits(images.to(device))
        bad = int(logits.isnan().any(dim=1).sum())
        require(bad == 0, "logits_fn", self.logits.__name__, f"must give logits without nan: {bad} images")
        confidence, classes = logits.double().softmax(dim=1).max(dim=1)
        radii, refused = certificate.certified_radii(
            self.trainer, self.module, images.to(device), labels.to(device)
        )
        self.no_certificate = self.no_certificate or refused
        return Clean(
            index=number * self.settings.batch_size + torch.arange(len(labels)),
            labels=labels,
            confidence=confidence.cpu(),
            correct=classes.cpu() == labels,
            certified=radii,
        )

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
                norm=self.norm,
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
        found = curve(records, attack.strengths or files.grid(records.radii), confidence)
        summary = self._summary(attack, records, fitted, reason, complete)
        self.settings.results[attack.name] = summary
        if summary["images"]["gradient_vanished"]:
            rank_zero_warn(f"{attack.name}: {summary['masking']['sentence']}")
        if not summary["fitted"]:
            rank_zero_warn(f"{attack.name}: no R, as {reason}")
        counted = int(records.confident(confidence).sum())
        picture = files.draw_curve(attack.name, found, fitted, confidence, counted, self.norm)
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
        self._write(attack.name, contents)
        self.metrics.update(_metrics(attack.name, summary))
        return summary

    def _report_certificate(self, clean: Clean) -> None:
        confidence, name = self.settings.confidence, certificate.FILES
        found = certificate.certified_curve(clean, confidence)
        own = certificate.certified_summary(clean, self.norm, confidence)
        summary = files.json_ready({**own, "settings": self._settings(), **self._circumstances()})
        self.settings.certificate = summary
        picture = certificate.draw_certified(found, self.norm, confidence, summary["images"]["counted"])
        log_figure(self.trainer, f"robustness/{name}", picture)
        table = certificate.certified_table(found)
        text = json.dumps(summary, indent=2) + "\n"
        self._write(name, {".csv": table, ".json": text, ".png": as_png(picture)})
        self.metrics.update(_metrics(name, summary))

    def _write(self, name: str, contents: dict[str, str | bytes]) -> None:
        if not self.quick:
            for ending, content in contents.items():
                write_atomically(self.folder / f"{name}{ending}", content)

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
            "settings": {
                "arguments": getattr(attack, "arguments", {}),
                "strengths": attack.strengths,
                **self._settings(),
            },
            **self._circumstances(),
            "complete": complete,
        }
        ready: dict[str, Any] = files.json_ready(summary)
        return ready

    def _circumstances(self) -> dict[str, Any]:
        """Which module it was, and at which point."""
        return {
            "model": type(self.module).__name__,
            "checkpoint": self.weights and Path(self.weights).name,
            "stage": self.trainer.state.fn and self.trainer.state.fn.value,
            "epoch": self.trainer.current_epoch,
            "global_step": self.trainer.global_step,
            "precision": str(self.trainer.precision),
            "versions": files.versions(),
        }

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
        breaches = records.breaches().tolist()
        return {"norm": self.norm, "median_radius": median, "misclassified_within": breaches}

    def _masking(self, vanished: int) -> dict[str, Any] | None:
        check = self.masking
        found = asdict(check) | {"masked": check.masked, "sentence": check.sentence} if check else None
        if vanished:
            sentence = f"Gradients ARE masked: in this attack they vanished at {vanished} images."
            found = {**(found or {}), "masked": True, "sentence": sentence}
        return found

    def _settings(self) -> dict[str, Any]:
        names = ("confidence", "max_images", "batch_size", "split", "seed", "mean", "std")
        return {name: getattr(self.settings, name) for name in names}


def _metrics(name: str, summary: dict[str, Any]) -> dict[str, float]:
    """The scalars of an attack, or of the certificate, that have a value."""
    keys = ("R", "uncertainty", "accuracy", "median_radius", "average_radius", "R2")
    values = {key: summary.get(key) for key in keys}
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
