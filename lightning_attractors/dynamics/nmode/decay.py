"""The decay λ of nmODE, a constant or trained."""

from __future__ import annotations

import math
import warnings

import torch
from torch import nn

from lightning_attractors.errors import NonFiniteError, require


class Decaying(nn.Module):
    """A module with a decay λ that is a constant, or trained as log λ so that it stays above 0.

    Args:
        decay: λ, above 0; at or below 1 with a warning.
        trainable: whether λ is a parameter.

    Raises:
        SettingError: if ``decay`` is not above 0 and finite.
    """

    log_decay: nn.Parameter | None

    def __init__(self, decay: float, trainable: bool) -> None:
        super().__init__()
        require(0 < decay < math.inf, "decay", decay, "must be finite and above 0")
        if decay <= 1:
            warnings.warn(
                f"decay={decay}: the published gain bound 1/(λ − 1) needs λ > 1; all else works without",
                stacklevel=3,
            )
        self._decay = float(decay)
        self.log_decay = nn.Parameter(torch.tensor(math.log(decay))) if trainable else None

    @property
    def decay(self) -> float:
        """λ as it is now."""
        if self.log_decay is None:
            return self._decay
        return math.exp(min(float(self.log_decay.detach()), 700.0))  # beyond that, exp raises

    def checked_decay(self) -> float:
        """λ as it is now.

        Raises:
            NonFiniteError: if training has driven it to where float32 ends, or made it nan.
        """
        decay = self.decay
        if self.log_decay is not None and not 1e-30 < decay < 1e30:
            raise NonFiniteError(f"the trained decay has diverged: λ = {decay:g}")
        return decay
