"""How robust is a classifier? Its clean images, its certificate, and one attack after another."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lightning_attractors.errors import SettingError, require
from lightning_attractors.norms import NormName
from lightning_attractors.robustness.attacks import (
    FGSM,
    Choice,
    Classifier,
    Logits,
    Outcome,
    Trial,
    make_attacks,
)
from lightning_attractors.robustness.images import AttackedImages, Batch, CleanImages, Example, rebatched
from lightning_attractors.robustness.masking import MaskingCheck, check_masking
from lightning_attractors.robustness.randomness import seed_all, unchanged_random_numbers
from lightning_attractors.robustness.report import (
    CERTIFICATE,
    AttackReport,
    CertificateReport,
    Report,
    Result,
)

_GALLERY = 5
_MASKING_IMAGES = 100


@dataclass(frozen=True)
class MeasureSettings:
    """How a robustness is measured.

    Args:
        confidence: confidence from which on a correctly classified image counts, in [0, 1].
        max_images: how many images are attacked at most, at least 1; all of them with None.
        batch_size: how many images are attacked together, at least 1.
        seed: of random attacks, at least 0.
        masking: whether to check for masked gradients.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    confidence: float = 0.8
    max_images: int | None = 1000
    batch_size: int = 256
    seed: int = 0
    masking: bool = True

    def __post_init__(self) -> None:
        require(0 <= self.confidence <= 1, "confidence", self.confidence, "must be from 0 to 1")
        fits = self.max_images is None or self.max_images >= 1
        require(fits, "max_images", self.max_images, "must be at least 1, or null")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "must be at least 1")
        require(self.seed >= 0, "seed", self.seed, "must be at least 0")


@dataclass(frozen=True)
class Certificate:
    """What is claimed to be proved of a classifier.

    Attributes:
        radii: takes images (B, C, H, W) in [0, 1] and labels (B,), gives the radii (B,) within which the
            images keep their labels; None if nothing is claimed. Its :class:`SettingError` is a reason why
            there are none.
        norm: that of the radii.
        box: the ends that all pixels of an image lie between for the radii to speak of it: attacks that go
            farther do not count against them.
        refused: why nothing is claimed, if there is a reason.
    """

    radii: Callable[[Tensor, Tensor], Tensor] | None = None
    norm: NormName = "linf"
    refused: str = ""
    box: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Share:
    """What one of several processes measures: all see all batches, and each attacks some of them.

    Attributes:
        rank: which process this is, from 0.
        of: how many there are.
        gather: does something in every process, and gives what all of them found, in the order of the ranks.
    """

    rank: int = 0
    of: int = 1
    gather: Callable[[Callable[[], Any]], list[Any]] = lambda work: [work()]


def measure(
    logits_fn: Logits,
    batches: Iterable[tuple[Tensor, Tensor]],
    attacks: Sequence[Choice] = ("fgsm_radius", "pgd_radius"),
    strengths: Sequence[float] | None = None,
    settings: MeasureSettings = MeasureSettings(),
    certificate: Certificate = Certificate(),
    device: torch.device | str = "cpu",
    on_result: Callable[[Result], None] | None = None,
    share: Share = Share(),
    progress: bool = False,
) -> Report:
    """Attack images, and report how the accuracy falls with the strength of the attack.

    What is found is a function of the seed and the images alone, not of how many processes share the work;
    random numbers are left as they were. The classifier is to be in evaluation mode.

    Args:
        logits_fn: gives the logits (B, K) of images (B, C, H, W) in [0, 1], each image's a function of it
            alone, and differentiable, on the device.
        batches: images in [0, 1] and labels (B,), such as a DataLoader gives; passed over once, and kept.
        attacks: names, import paths, callables: see
            :func:`~lightning_attractors.robustness.attacks.make_attacks`.
        strengths: of the attacks that are swept and have none of their own.
        settings: which images count, and how many.
        certificate: radii that no attack may break.
        device: where the classifier is.
        on_result: is given everything that is found, as soon as it is there: the certificate, the check for
            masked gradients, each attack; and what there is of an attack when it is interrupted. On rank 0.
        share: which part of the batches is this process's.
        progress: whether to show a bar.

    Returns:
        The report, the same in all processes but for the check for masked gradients, which is rank 0's. It
        does not fail where a certificate is broken: ask ``require_certificate``.

    Raises:
        SettingError: if there are no images, or attacks, batches, logits or radii do not fit.

    Example:
        >>> def brighter_than_half(images):
        ...     mean = images.mean(dim=(1, 2, 3))
        ...     return 20 * torch.stack([0.5 - mean, mean - 0.5], dim=1)
        >>> images = torch.linspace(0.2, 0.4, 600).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
        >>> batches = [(images, torch.zeros(600, dtype=torch.int64))]
        >>> report = measure(brighter_than_half, batches, ["fgsm_radius"])
        >>> round(report.attacks["fgsm_radius"].robustness, 2)
        0.2
    """
    trials = make_attacks(attacks, strengths)
    refuse_name_of_certificate(trials)
    tell = on_result if on_result is not None and share.rank == 0 else lambda result: None
    run = _Measurement(logits_fn, settings, certificate, torch.device(device), share, progress, tell)
    with torch.inference_mode(False), unchanged_random_numbers():
        proved = run.examine(batches)
        found = {trial.name: run.attack(trial) for trial in trials}
    return Report(found, proved, run.masking, asdict(settings))


def rehearse(
    logits_fn: Logits, images: Tensor, labels: Tensor, trials: Sequence[Trial], settings: MeasureSettings
) -> None:
    """Try everything on a few images, so that what does not fit is said before it costs anything.

    Args:
        logits_fn: as for :func:`measure`.
        images: (B, C, H, W) in [0, 1], on the device of the classifier.
        labels: (B,).
        trials: each is tried at its smallest and its largest strength.
        settings: of the measurement.

    Raises:
        SettingError: if something does not fit.
    """
    with unchanged_random_numbers():
        size = settings.batch_size
        Classifier(logits_fn, images, labels, size).gradient(FGSM(), images, labels)
        # An untrained classifier may have all wrong, where attacks do nothing: the classes are its own
        with torch.no_grad():
            classes = logits_fn(images).argmax(dim=1)
        classifier = Classifier(logits_fn, images, classes, size)
        for trial in trials:
            ends = tuple({min(trial.strengths), max(trial.strengths)} if trial.strengths else ())
            replace(trial, strengths=ends)(classifier, [settings.seed])


def refuse_name_of_certificate(trials: Sequence[Trial]) -> None:
    """Leave the certificate the name of its files.

    Raises:
        SettingError: if an attack has it.
    """
    free = CERTIFICATE not in [trial.name for trial in trials]
    require(free, "attacks", CERTIFICATE, "must have another name, as the certificate's files have this one")


@dataclass
class _Measurement:
    """One process's part of a measurement.

    Attributes:
        parts: its batches, with what is known of their images.
        masking: what was found of masked gradients, on rank 0.
        no_certificate: why the certificate gave no radii, if it said so.
    """

    logits_fn: Logits
    settings: MeasureSettings
    certificate: Certificate
    device: torch.device
    share: Share
    progress: bool
    tell: Callable[[Result], None]
    parts: list[tuple[Batch, CleanImages]] = field(default_factory=list)
    masking: MaskingCheck | None = None
    no_certificate: str = ""

    def examine(self, batches: Iterable[tuple[Tensor, Tensor]]) -> CertificateReport | None:
        """Go over the clean images and their certificate, and the question whether gradients are masked."""
        found = self.share.gather(lambda: self._examined_here(batches))
        parts = [part for own in found for part in own]
        require(len(parts) > 0, "batches", "none", "must hold at least one image")
        clean, proved = CleanImages.joined(parts), None
        if clean.has_certificate:
            proved = CertificateReport(
                clean, self.certificate.norm, self.settings.confidence, self.certificate.box
            )
            self.tell(proved)
        if self.masking is not None:
            self.tell(self.masking)
        return proved

    def attack(self, trial: Trial) -> AttackReport:
        """Attack all images, and tell what is found; what there is of it when interrupted."""
        started = time.monotonic()
        images: list[AttackedImages] = []
        examples: list[Example] = []

        def report(images: list[AttackedImages], examples: list[Example], complete: bool) -> AttackReport:
            found = AttackReport(
                trial,
                AttackedImages.joined(images),
                sorted(examples, key=lambda example: example.index)[:_GALLERY],
                self.settings.confidence,
                self.certificate.norm,
                self.masking,
                self.no_certificate or self.certificate.refused,
                time.monotonic() - started,
                complete,
                self.certificate.box,
            )
            self.tell(found)
            return found

        try:
            everywhere = self.share.gather(lambda: self._attacked_here(trial, images, examples))
        except KeyboardInterrupt:
            # The other processes are being interrupted too: nothing is gathered
            if images:
                report(images, examples, complete=False)
            raise
        images = [part for own, _ in everywhere for part in own]
        return report(images, [example for _, own in everywhere for example in own], complete=True)

    def _examined_here(self, batches: Iterable[tuple[Tensor, Tensor]]) -> list[CleanImages]:
        """This process's clean images; on rank 0 the check for masked gradients too."""
        settings = self.settings
        seed_all([settings.seed])  # loaders that shuffle serve the same images in every process
        for batch in rebatched(batches, settings.batch_size, settings.max_images or sys.maxsize):
            if batch.number % self.share.of == self.share.rank:
                with unchanged_random_numbers():  # what the loaders serve next is not one process's business
                    self.parts.append((batch, self._clean(batch)))
        if settings.masking and self.share.rank == 0 and self.parts:
            batch, clean = self.parts[0]
            rows = clean.correct.nonzero().squeeze(1)[:_MASKING_IMAGES]
            if len(rows):
                rest = (~clean.correct).nonzero().squeeze(1)[: len(rows)]
                chosen = torch.cat([rows, rest])
                images, labels = batch.images[chosen].to(self.device), batch.labels[chosen].to(self.device)
                self.masking = check_masking(
                    self.logits_fn, images, labels, batch_size=settings.batch_size, seed=settings.seed
                )
        return [clean for _, clean in self.parts]

    def _classifier(self, batch: Batch) -> Classifier:
        images, labels = batch.images.to(self.device), batch.labels.to(self.device)
        return Classifier(self.logits_fn, images, labels, self.settings.batch_size)

    @torch.no_grad()
    def _clean(self, batch: Batch) -> CleanImages:
        seed_all([self.settings.seed, batch.number])
        classifier, labels = self._classifier(batch), batch.labels
        confidence, classes = classifier.logits(classifier.images).double().softmax(dim=1).max(dim=1)
        return CleanImages(
            index=batch.number * self.settings.batch_size + torch.arange(len(labels)),
            labels=labels,
            confidence=confidence.cpu(),
            correct=classes.cpu() == labels,
            certified=self._certified(classifier.images, classifier.labels),
        )

    def _certified(self, images: Tensor, labels: Tensor) -> Tensor:
        """Radii (B,), float64, on the CPU; nan, and a reason, where there are none that hold."""
        unknown = torch.full((len(labels),), torch.nan, dtype=torch.float64)
        if self.certificate.radii is None:
            return unknown
        try:
            radii = self.certificate.radii(images, labels)
        except SettingError as error:
            self.no_certificate = self.no_certificate or str(error)
            return unknown
        fits = isinstance(radii, Tensor) and radii.shape == labels.shape and not radii.isnan().any()
        shape = tuple(radii.shape) if isinstance(radii, Tensor) else ()
        valid = f"must give radii of shape {tuple(labels.shape)}, none of them nan"
        require(bool(fits), "certified_radii", shape, valid)
        return radii.detach().double().cpu()

    def _attacked_here(
        self, trial: Trial, images: list[AttackedImages], examples: list[Example]
    ) -> tuple[list[AttackedImages], list[Example]]:
        """This process's images under attack, put into the lists as they come, and these."""
        hidden = None if self.progress else True  # None: where there is no terminal
        for batch, clean in tqdm(self.parts, desc=trial.name, unit="batch", leave=False, disable=hidden):
            key = [self.settings.seed, batch.number]
            outcome = trial(self._classifier(batch), key, self.certificate.norm, self.certificate.box)
            images.append(AttackedImages.of(clean, outcome))
            examples.extend(self._examples(batch, clean, outcome, _GALLERY - len(examples)))
        return images, examples

    @torch.no_grad()
    def _examples(self, batch: Batch, clean: CleanImages, outcome: Outcome, most: int) -> list[Example]:
        """The first images that count and were broken."""
        counts = clean.confident(self.settings.confidence)
        rows = (counts & outcome.radii.isfinite().cpu()).nonzero().squeeze(1)[:most]
        if not len(rows):
            return []
        images, attacked = batch.images[rows], outcome.adversarial.cpu()[rows]
        columns = (clean.index[rows].tolist(), images, attacked, self._titles(images), self._titles(attacked))
        return [Example(*values) for values in zip(*columns, strict=True)]

    def _titles(self, images: Tensor) -> list[str]:
        """Class and confidence of every image, in words."""
        confidence, classes = self.logits_fn(images.to(self.device)).double().softmax(dim=1).max(dim=1)
        return [f"class {k} at {c:.2f}" for k, c in zip(classes.tolist(), confidence.tolist(), strict=True)]
