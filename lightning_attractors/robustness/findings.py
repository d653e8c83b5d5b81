"""All that a measurement has found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lightning_attractors.norms import NORMS
from lightning_attractors.robustness.lines import result_line
from lightning_attractors.robustness.masking import MaskingCheck
from lightning_attractors.robustness.report import AttackReport, CertificateReport
from lightning_attractors.robustness.smoothed import SmoothedReport


class BrokenCertificateError(RuntimeError):
    """An image was misclassified within the radius for which its class is certified."""


Result = CertificateReport | MaskingCheck | SmoothedReport | AttackReport


@dataclass(frozen=True)
class Report:
    """All that a measurement has found.

    Attributes:
        attacks: by their names.
        certificate: None without certified radii.
        masking: None if that was not asked, or no image is classified correctly.
        smoothed: None if that was not asked.
        settings: of the measurement.
    """

    attacks: dict[str, AttackReport]
    certificate: CertificateReport | None
    masking: MaskingCheck | None
    smoothed: SmoothedReport | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """A line for every attack, as in the log."""
        return "\n".join(
            result_line(found.summary(self.settings, {}), found.seconds) for found in self.attacks.values()
        )

    def require_certificate(self) -> None:
        """Fail if a certificate was broken.

        Raises:
            BrokenCertificateError: naming the images.
        """
        broken = {name: found for name, found in self.attacks.items() if found.breaches}
        if broken:
            norm = NORMS[next(iter(broken.values())).norm]
            listed = "; ".join(f"{name}: images {found.breaches[:10]}" for name, found in broken.items())
            text = f"certified_radii is wrong, misclassified within it in {norm} are {listed}"
            raise BrokenCertificateError(text)
