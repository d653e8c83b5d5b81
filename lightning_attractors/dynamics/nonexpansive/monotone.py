"""Monotone activations, whose slope is known to lie in [0, L]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attractors.errors import SettingError, require

# Slopes of these lie in [0, 1].
MONOTONE: dict[str, type[nn.Module]] = {
    "ReLU": nn.ReLU,
    "LeakyReLU": nn.LeakyReLU,
    "ELU": nn.ELU,
    "Softplus": nn.Softplus,
    "Tanh": nn.Tanh,
    "Sigmoid": nn.Sigmoid,
}
_RANGE, _POINTS = 20.0, 40_001


class Monotone(nn.Module):
    """σ with 0 ≤ σ′ ≤ L, applied elementwise.

    Args:
        function: a name in :data:`MONOTONE`, or an elementwise module without parameters.
        lipschitz: L, above 0; 1 for the named ones if not given.

    Attributes:
        lipschitz: L.

    Raises:
        SettingError: if the name is unknown, a module comes without its constant, or it falls or rises by
            more than L per unit somewhere on a fine grid of [−20, 20].

    Example:
        >>> Monotone("LeakyReLU").lipschitz
        1.0
    """

    def __init__(self, function: str | nn.Module = "ReLU", lipschitz: float | None = None) -> None:
        super().__init__()
        if isinstance(function, str):
            known = ", ".join(MONOTONE)
            require(function in MONOTONE, "activation", function, f"must be one of {known}, or a module")
            function, lipschitz = MONOTONE[function](), 1.0 if lipschitz is None else lipschitz
        self.function = function
        name = type(function).__name__
        if lipschitz is None:
            raise SettingError("lipschitz", None, f"must be given for {name}: its largest slope")
        require(0 < lipschitz < float("inf"), "lipschitz", lipschitz, "must be finite and above 0")
        self.lipschitz = float(lipschitz)
        self._check(name)

    @torch.no_grad()
    def _check(self, name: str) -> None:
        has_parameters = any(True for _ in self.function.parameters())
        require(not has_parameters, "activation", name, "must have no parameters: its slope would change")
        x = torch.linspace(-_RANGE, _RANGE, _POINTS, dtype=torch.float64)
        values = self.function(x.clone())
        alone = torch.stack([self.function(some.clone()) for some in x[:: _POINTS // 10].split(1)])
        elementwise = values.shape == x.shape and torch.allclose(alone[:, 0], values[:: _POINTS // 10])
        require(elementwise, "activation", name, "must act on every entry by itself")
        slopes = values.diff() / x.diff()
        low, where = slopes.min(dim=0)
        require(float(low) >= -1e-9, "activation", name, f"must be monotone: it falls at {x[where]:.4g}")
        high = float(slopes.max())
        valid = f"must be at least the largest slope of {name}, {high:.6g}"
        require(high <= self.lipschitz * (1 + 1e-9), "lipschitz", self.lipschitz, valid)

    def forward(self, x: Tensor) -> Tensor:
        """σ(x), of the shape of x."""
        y: Tensor = self.function(x)
        return y

    def extra_repr(self) -> str:
        return f"lipschitz={self.lipschitz:g}"
