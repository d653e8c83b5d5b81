r"""Margins to second order: the least of g·u + uᵀHu over a ball, bounded from below by multipliers.

For any μ ≥ 0 with H + μI positive definite, g·u + uᵀHu ≥ g·u + uᵀ(H + μI)u − μr² ≥ −¼ gᵀ(H + μI)⁻¹g − μr²
on ‖u‖₂ ≤ r. For the best μ that is the minimum itself, as trust-region problems have no duality gap; any μ is
sound.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attractors.certificates.tubes import SLACK

# μ = −λ_min + share · ‖g‖/2r: at the share 1 the bound is at least −r‖g‖ + r²λ_min, the one of norms alone.
_SHARES = (0.0, 0.03, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0)


@dataclass(frozen=True)
class MarginForms:
    """Second-order models of C margins for each of B images.

    Attributes:
        classes: which margins, shape (B, C).
        eigenvalues: of H, ascending, shape (B, C, N).
        slopes: g in the basis of H's eigenvectors, shape (B, C, N).
    """

    classes: Tensor
    eigenvalues: Tensor
    slopes: Tensor

    @classmethod
    def of(cls, classes: Tensor, forms: Tensor, gradients: Tensor) -> MarginForms:
        """From H (B, C, N, N), symmetric, and g (B, C, N)."""
        lost = ~forms.isfinite().all(dim=(2, 3))[..., None]
        eigenvalues, vectors = torch.linalg.eigh(forms.masked_fill(lost[..., None], 0.0))
        eigenvalues = eigenvalues.masked_fill(lost, torch.nan)  # nothing holds
        return cls(classes, eigenvalues, (vectors.mT @ gradients[..., None])[..., 0])

    def lost(self, radii: Tensor) -> Tensor:
        """Bounds (B, C) of −(g·u + uᵀHu) over ‖u‖₂ ≤ radii (B,)."""
        r = radii[:, None]
        # what the eigenvalues are off by, and zero, which no μ may come down to
        error = 1e-9 * self.eigenvalues.abs().amax(dim=2) + 1e-30
        least = (error - self.eigenvalues[:, :, 0]).clamp(min=0)
        step = torch.linalg.vector_norm(self.slopes, dim=2) / (2 * r.clamp(min=1e-30)) + error
        found = []
        for share in _SHARES:
            multiplier = least + share * step
            held = (self.eigenvalues + (multiplier - error)[..., None]).clamp(min=1e-300)
            found.append((self.slopes.square() / held).sum(dim=2) / 4 + multiplier * r * r)
        return torch.stack(found).amin(dim=0) * SLACK
