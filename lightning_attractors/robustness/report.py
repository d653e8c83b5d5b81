"""What a measurement has found, in numbers: of the certificate, of every attack, and of all together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_attractors.norms import NormName
from lightning_attractors.robustness.advice import advice_on_confidence, advice_on_fit, more_images
from lightning_attractors.robustness.attacks import RadiusSearch, Trial, pgd_radii
from lightning_attractors.robustness.images import AttackedImages, CleanImages, Example
from lightning_attractors.robustness.logistic import LogisticFit, fit_logistic, relative_accuracy
from lightning_attractors.robustness.masking import MaskingCheck
from lightning_attractors.robustness.smoothed import SmoothedReport
from lightning_attractors.robustness.summaries import json_ready, median, share, spread
from lightning_attractors.robustness.usual import usual_among, usual_strengths

# What the certificate's files are called, where those of attacks have the attacks' names.
CERTIFICATE = "certified"
_AGREEMENT = 0.05


@dataclass(frozen=True)
class Curve:
    """Accuracies against strength, each of shape (S,), float64.

    Attributes:
        strengths: ascending where there is a search; as given otherwise.
        accuracy: share of all images that are classified correctly; of the certificate, and certified to be.
        relative: the same among the images that count; nan without any.
        certified: share of the images that count with a certified radius of at least |strength|; None without
            a certificate, or where the attack went farther than its strength in the certificate's norm.
    """

    strengths: Tensor
    accuracy: Tensor
    relative: Tensor
    certified: Tensor | None = None


@dataclass(frozen=True)
class CertificateReport:
    """What a certificate says of the images, before any attack.

    Attributes:
        images: all of them, at least one, each with a certified radius.
        norm: that of the radii.
        confidence: from which on a correctly classified image counts.
        box: the ends that pixels lie between of the images that the radii speak of.
        channels: of the images, by which the usual strengths are chosen.
    """

    images: CleanImages
    norm: NormName
    confidence: float
    box: tuple[float, float] = (0.0, 1.0)
    channels: int = 1
    name = CERTIFICATE

    @cached_property
    def curve(self) -> Curve:
        """The certified accuracies up to the largest radius of a correct image."""
        images, counts = self.images, self.images.confident(self.confidence)
        points = spread(images.certified[images.correct])
        held = images.correct & (images.certified >= points[:, None])
        return Curve(points, share(held), share(held[:, counts]))

    def summary(self, settings: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
        """The certificate as JSON: ``average_radius`` is of all images, those that are wrong with 0.

        Args:
            settings: of the measurement.
            about: what else is worth knowing: which classifier it was.
        """
        images, counts = self.images, self.images.confident(self.confidence)
        radii = torch.where(images.correct, images.certified, 0.0)
        usual = usual_strengths(self.norm, self.channels, math.inf)
        shares = {name: float((radii >= radius).double().mean()) for name, radius in usual.items()}
        return json_ready(
            {
                "norm": self.norm,
                "box": self.box,
                "accuracy": float(images.correct.double().mean()),
                "median_radius": median(radii[counts]),
                "median_radius_all": median(radii),
                "average_radius": float(radii.mean()),
                "certified_accuracy": shares,
                "images": {
                    "all": len(images),
                    "correct": int(images.correct.sum()),
                    "counted": int(counts.sum()),
                    "certified": int((radii > 0).sum()),
                },
                "settings": settings,
                **about,
            }
        )


@dataclass(frozen=True)
class AttackReport:
    """What an attack did to the images.

    Attributes:
        trial: the attack.
        images: those that were attacked.
        examples: some that it broke.
        confidence: from which on a correctly classified image counts.
        norm: that of the certified radii, and of the distances.
        masking: the check for masked gradients, if there was one.
        no_certificate: why there are no certified radii, if there is a reason.
        seconds: how long it took.
        complete: whether all images were attacked.
        box: the ends that pixels lie between of the images that the certified radii speak of.
        smoothed: what is known of the smoothed classifier, if that was asked.
        channels: of the images, by which the usual strengths are chosen.
        others: whether there are images beyond these, which ``max_images`` left out.
    """

    trial: Trial
    images: AttackedImages
    examples: Sequence[Example]
    confidence: float
    norm: NormName = "linf"
    masking: MaskingCheck | None = None
    no_certificate: str = ""
    seconds: float = 0.0
    complete: bool = True
    box: tuple[float, float] = (0.0, 1.0)
    smoothed: SmoothedReport | None = None
    channels: int = 1
    others: bool = False

    @property
    def name(self) -> str:
        """What the attack is called."""
        return self.trial.name

    @cached_property
    def counts(self) -> Tensor:
        """Which images count, shape (N,), bool."""
        return self.images.confident(self.confidence)

    @cached_property
    def fit(self) -> LogisticFit | None:
        """The generalised logistic function through the curve of the images that count; None without any."""
        if not bool(self.counts.any()):
            return None
        return fit_logistic(self.images.radii[self.counts], self.trial.reach)

    @property
    def robustness(self) -> float | None:
        """R, None if there is no fit."""
        return self.fit.R if self.fit is not None and self.fit.fitted else None

    @property
    def reason(self) -> str:
        """Why there is no R, in words; empty if there is one."""
        if self.fit is None:
            sure = f" with a confidence of {self.confidence:g} or more" if self.images.correct.any() else ""
            return f"no image is classified correctly{sure}"
        return self.fit.reason

    @property
    def advice(self) -> str:
        """What would give an R, or one that counts, in words; empty if there is one that does."""
        if self.fit is None:
            return advice_on_confidence(self.images.correct, self.images.confidence)
        unsure = bool((self.images.correct & ~self.counts).any())
        sweeps = bool(self.images.withstood.shape[1])
        return advice_on_fit(
            self.fit, self.images.radii[self.counts], sweeps, more_images(self.others, unsure)
        )

    @property
    def strength_norm(self) -> NormName | None:
        """The norm that strengths are distances in; None where that is not known, as of corruptions."""
        return self.trial.norm

    @property
    def accuracy_at(self) -> dict[str, float]:
        """The share of all images that are right at the usual strengths, by how these are written.

        See :func:`~lightning_attractors.robustness.usual_strengths`; of a sweep, those that it tried.
        """
        images, tried = self.images, self.trial.strengths
        if images.withstood.shape[1]:
            found = dict(zip(tried, share(images.withstood.T).tolist(), strict=True))
            usually = usual_among(self.strength_norm, self.channels, tried)
            return {name: found[one] for name, one in usually.items()}
        reach = self.trial.reach
        usual = usual_strengths(
            self.strength_norm or "linf", self.channels, max(reach) if isinstance(reach, list) else reach
        )
        shares = relative_accuracy(images.radii, torch.tensor(list(usual.values()), dtype=torch.float64))
        return dict(zip(usual, shares.tolist(), strict=True))

    @cached_property
    def curve(self) -> Curve:
        """The curve, at the strengths of a sweep or, of a search, evenly up to the largest radius."""
        images, counts = self.images, self.counts
        points = spread(images.radii)
        if self.trial.strengths:
            points = torch.tensor(self.trial.strengths, dtype=torch.float64)
        if images.withstood.shape[1]:
            accuracy, relative = share(images.withstood.T), share(images.withstood[counts].T)
        else:
            accuracy = relative_accuracy(images.radii, points)
            relative = torch.full_like(points, torch.nan)
            if bool(counts.any()):
                relative = relative_accuracy(images.radii[counts], points)
        certified = None
        if images.has_certificate and bool(images.bounded.all()) and bool(counts.any()):
            certified = share(images.certified[counts] >= points.abs().unsqueeze(1))
        return Curve(points, accuracy, relative, certified)

    @cached_property
    def breaches(self) -> list[int]:
        """Indices of images that were misclassified within their certified radius."""
        return list(map(int, self.images.breaches()))

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers must know, one sentence each."""
        masking = self._masking()
        return [f"{self.name}: {masking['sentence']}"] if masking and self._vanished else []

    def summary(self, settings: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
        """R and all that it depends on, as JSON.

        Args:
            settings: of the measurement.
            about: what else is worth knowing: which classifier it was.
        """
        images, radii = self.images, self.images.radii[self.counts]
        own = {"arguments": self.trial.arguments, "strengths": self.trial.strengths}
        return json_ready(
            {
                "attack": self.name,
                "mode": "radius" if isinstance(self.trial, RadiusSearch) else "strengths",
                "norm": self.strength_norm,
                **self._fitted(),
                "accuracy": float(images.correct.double().mean()),
                "accuracy_at": self.accuracy_at,
                "median_radius": median(radii),
                "median_radius_all": median(images.radii),
                "images": {
                    "all": len(images),
                    "correct": int(images.correct.sum()),
                    "counted": int(self.counts.sum()),
                    "broken": int(radii.isfinite().sum()),
                    "gradient_vanished": self._vanished,
                },
                **({"steps": self._steps} if self._steps else {}),
                "certificate": self._certificate(),
                "masking": self._masking(),
                "settings": {**own, **settings},
                **about,
                "complete": self.complete,
            }
        )

    def _fitted(self) -> dict[str, Any]:
        """R, its uncertainties and the rules it counts by; no R, but the reason, where there is no fit."""
        fit = self.fit
        if fit is None or self.robustness is None:
            reason = self.reason
            nothing = dict.fromkeys(("R", "uncertainty", "fit_uncertainty"))
            return {**nothing, "fitted": False, "reason": reason, "advice": self.advice, "counts": False}
        values = {name: value for name, value in asdict(fit).items() if name != "reason"}
        rules = {"more_than_500_images": fit.enough_images, "R2_at_least_0.95": fit.good_fit}
        advice = self.advice or None
        return {
            **values,
            "fitted": True,
            "reason": None,
            "advice": advice,
            "rules": rules,
            "counts": fit.counts,
        }

    @cached_property
    def _steps(self) -> dict[str, Any]:
        """R of the numbers of steps, and ε times it, which is R if every step went as far as it could."""
        steps, trial = self.images.steps[self.counts], self.trial
        if not (isinstance(trial, RadiusSearch) and trial.search is pgd_radii and len(steps)):
            return {}
        size, tried = trial.arguments["step_size"], range(1, trial.arguments["steps"] + 1)
        in_steps = fit_logistic(torch.where(steps < 0, torch.inf, steps.double()), tried, resamples=0)
        product = size * in_steps.R
        agrees = None
        if self.robustness is not None and in_steps.fitted:
            agrees = abs(self.robustness - product) <= _AGREEMENT * self.robustness
        found = {"R": in_steps.R, "step_size": size, "R_times_step_size": product}
        return {**found, "agrees_within_5_percent": agrees}

    def _certificate(self) -> dict[str, Any] | None:
        if not self.images.has_certificate:
            return {"reason": self.no_certificate} if self.no_certificate else None
        about = {"norm": self.norm, "box": self.box, "misclassified_within": self.breaches}
        return {**about, "median_radius": median(self.images.certified[self.counts])}

    @property
    def _vanished(self) -> int:
        return int(self.images.vanished.sum())

    def _masking(self) -> dict[str, Any] | None:
        check, vanished = self.masking, self._vanished
        found = asdict(check) | {"masked": check.masked, "sentence": check.sentence} if check else None
        if vanished:
            sentence = f"Gradients ARE masked: in this attack they vanished at {vanished} images."
            found = {**(found or {}), "masked": True, "sentence": sentence}
        return found
