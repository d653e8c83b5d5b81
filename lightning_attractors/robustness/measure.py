"""How robust is a classifier? Its clean images, its certificate, and one attack after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from lightning_attractors.errors import SettingError, require
from lightning_attractors.robustness.attacks import (
    Choice,
    Classifier,
    Logits,
    Outcome,
    Trial,
    make_attacks,
)
from lightning_attractors.robustness.findings import Report, Result
from lightning_attractors.robustness.images import (
    AttackedImages,
    Batch,
    CleanImages,
    Example,
    FirstImages,
    rebatched,
    warn_of_missing_classes,
)
from lightning_attractors.robustness.masking import MaskingCheck, check_masking
from lightning_attractors.robustness.randomness import seed_all, unchanged_random_numbers
from lightning_attractors.robustness.report import CERTIFICATE, AttackReport, CertificateReport
from lightning_attractors.robustness.settings import Certificate, MeasureSettings, Share
from lightning_attractors.robustness.smoothed import SMOOTHED, SmoothedImages, SmoothedReport
from lightning_attractors.robustness.smoothing import Smoothing, Vote, VoteMemory, vote

_GALLERY = 5
_MASKING_IMAGES = 100


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
    memory: VoteMemory | None = None,
) -> Report:
    """Attack images, and report how the accuracy falls with the strength of the attack.

    What is found is a function of the seed and the images alone, not of how many processes share the work;
    random numbers are left as they were. The classifier is to be in evaluation mode.

    Args:
        logits_fn: gives the logits (B, K) of images (B, C, H, W) in [0, 1], each image's a function of it
            alone, and differentiable, on the device.
        batches: images in [0, 1] and labels (B,), such as a DataLoader gives; passed over once, and kept.
        attacks: names, import paths, callables: see
            :func:`~lightning_attractors.robustness.make_attacks`.
        strengths: of the attacks that are swept and have none of their own.
        settings: which images count, and how many.
        certificate: radii that no attack may break.
        device: where the classifier is.
        on_result: is given everything that is found, as soon as it is there: the certificate, the check for
            masked gradients, the smoothed classifier, each attack; and what there is of an attack when it is
            interrupted. On rank 0.
        share: which part of the batches is this process's.
        progress: whether to show a bar.
        memory: of an interrupted smoothing, such as
            :class:`~lightning_attractors.robustness.KeptVotes`, which goes on from it.

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
    refuse_names_of_certificates(trials)
    tell = on_result if on_result is not None and share.rank == 0 else lambda result: None
    run = _Measurement(logits_fn, settings, certificate, torch.device(device), share, progress, tell)
    with torch.inference_mode(False), unchanged_random_numbers():
        proved = run.examine(batches)
        if settings.smoothing is not None:
            run.smooth(settings.smoothing, memory or VoteMemory())
        found = {trial.name: run.attack(trial) for trial in trials}
    return Report(found, proved, run.masking, run.smoothed, asdict(settings))


def refuse_names_of_certificates(trials: Sequence[Trial]) -> None:
    """Leave the certificate and the smoothed classifier the names of their files.

    Raises:
        SettingError: if an attack has one.
    """
    taken = [trial.name for trial in trials if trial.name in (CERTIFICATE, SMOOTHED)]
    valid = "must have another name, as the certificate's files have this one"
    require(not taken, "attacks", "".join(taken[:1]), valid)


@dataclass
class _Measurement:
    """One process's part of a measurement.

    Attributes:
        parts: its batches, with what is known of their images.
        masking: what was found of masked gradients, on rank 0.
        no_certificate: why the certificate gave no radii, if it said so.
        smoothed: what is known of the smoothed classifier, if that was asked.
        channels: of the images.
        classes: how many there are, 0 where this process has no images.
        others: whether there are images beyond ``max_images``.
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
    smoothed: SmoothedReport | None = None
    channels: int = 1
    classes: int = 0
    others: bool = False

    def examine(self, batches: Iterable[tuple[Tensor, Tensor]]) -> CertificateReport | None:
        """Go over the clean images and their certificate, and the question whether gradients are masked."""
        found = self.share.gather(lambda: self._examined_here(batches))
        parts = [part for own in found for part in own]
        require(len(parts) > 0, "batches", "none", "must hold at least one image")
        clean, proved = CleanImages.joined(parts), None
        if self.others and self.share.rank == 0:
            warn_of_missing_classes(clean.labels, self.classes)
        if clean.has_certificate:
            proved = CertificateReport(
                clean,
                self.certificate.norm,
                self.settings.confidence,
                self.certificate.box,
                self.channels,
            )
            self.tell(proved)
        if self.masking is not None:
            self.tell(self.masking)
        return proved

    def smooth(self, settings: Smoothing, memory: VoteMemory) -> None:
        """Certify the smoothed classifier on all images, and tell what is found.

        Where it is interrupted, the memory has what was done.
        """
        started, seed = time.monotonic(), self.settings.seed
        everywhere = self.share.gather(lambda: self._smoothed_here(settings, memory))
        images = SmoothedImages.joined([part for own, _ in everywhere for part in own])
        recalled, seconds = sum(count for _, count in everywhere), time.monotonic() - started
        self.smoothed = SmoothedReport(images, settings, seed, self.certificate.norm, recalled, seconds)
        self.tell(self.smoothed)

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
                self.smoothed,
                self.channels,
                self.others,
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
        first = FirstImages(batches, settings.max_images)
        for batch in rebatched(first, settings.batch_size):
            self.channels = batch.images.shape[1]
            if batch.number % self.share.of == self.share.rank:
                with unchanged_random_numbers():  # what the loaders serve next is not one process's business
                    self.parts.append((batch, self._clean(batch)))
        self.others = first.others
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
        logits = classifier.logits(classifier.images)
        confidence, classes = logits.double().softmax(dim=1).max(dim=1)
        self.classes = logits.shape[1]
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

    def _smoothed_here(self, settings: Smoothing, memory: VoteMemory) -> tuple[list[SmoothedImages], int]:
        """This process's images with their smoothed classes, and how many of them were known before."""
        memory.begin(settings.key(self.settings.seed))
        found, count = list[SmoothedImages](), sum(len(clean) for _, clean in self.parts)
        try:
            with tqdm(total=count, desc=SMOOTHED, unit="image", leave=False, disable=self._hidden) as bar:
                for batch, clean in self.parts:
                    votes = []
                    for index, image in zip(clean.index.tolist(), batch.images, strict=True):
                        votes.append(memory.recall(index, image) or self._vote(index, image, settings))
                        memory.keep(index, image, votes[-1])
                        bar.update()
                    found.append(SmoothedImages.of(clean, votes, settings))
        finally:
            memory.end()
        return found, memory.recalled

    def _vote(self, index: int, image: Tensor, settings: Smoothing) -> Vote:
        seed_all([self.settings.seed, index])  # for classifiers that have noise of their own
        return vote(self.logits_fn, image.to(self.device), index, settings, self.settings.seed)

    def _attacked_here(
        self, trial: Trial, images: list[AttackedImages], examples: list[Example]
    ) -> tuple[list[AttackedImages], list[Example]]:
        """This process's images under attack, put into the lists as they come, and these."""
        bar = tqdm(self.parts, desc=trial.name, unit="batch", leave=False, disable=self._hidden)
        for batch, clean in bar:
            key = [self.settings.seed, batch.number]
            outcome = trial(self._classifier(batch), key, self.certificate.norm, self.certificate.box)
            images.append(AttackedImages.of(clean, outcome))
            examples.extend(self._examples(batch, clean, outcome, _GALLERY - len(examples)))
        return images, examples

    @property
    def _hidden(self) -> bool | None:
        """Whether bars are hidden; None: where there is no terminal."""
        return None if self.progress else True

    @torch.no_grad()
    def _examples(self, batch: Batch, clean: CleanImages, outcome: Outcome, most: int) -> list[Example]:
        """The first images that count and were broken."""
        counts = clean.confident(self.settings.confidence)
        rows = (counts & outcome.radii.isfinite().cpu()).nonzero().squeeze(1)[:most]
        if not len(rows):
            return []
        images, attacked = batch.images[rows], outcome.adversarial.cpu()[rows]
        columns = (clean.index[rows].tolist(), images, attacked, self._said(images), self._said(attacked))
        return [Example(*values) for values in zip(*columns, strict=True)]

    def _said(self, images: Tensor) -> list[tuple[int, float]]:
        """Class and confidence of every image."""
        confidence, classes = self.logits_fn(images.to(self.device)).double().softmax(dim=1).max(dim=1)
        return list(zip(classes.tolist(), confidence.tolist(), strict=True))
