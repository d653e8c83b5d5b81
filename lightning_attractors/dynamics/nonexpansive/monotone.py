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
# Of 120 entries each: one by one, as vectors, and as images, with few and many of everything.
_SHAPES = ((120, 1), (1, 120), (10, 12), (120, 1, 1, 1), (1, 120, 1, 1), (1, 1, 10, 12), (5, 4, 3, 2))


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
        self.check()

    @torch.no_grad()
    def check(self) -> None:
        """See that the function is still what was promised, in the mode that it is in.

        Raises:
            SettingError: if it does not act on every entry by itself, whatever the shape, differs from one
                time to the next, or falls or rises by more than L per unit.
        """
        name = type(self.function).__name__
        require(0 < self.lipschitz < float("inf"), "lipschitz", self.lipschitz, "must be finite and above 0")
        has_parameters = any(True for _ in self.function.parameters())
        require(not has_parameters, "activation", name, "must have no parameters: its slope would change")
        device = next((buffer.device for buffer in self.function.buffers()), torch.device("cpu"))
        x = torch.linspace(-_RANGE, _RANGE, _POINTS, dtype=torch.float64, device=device)
        values = self._applied(x)
        same = values.shape == x.shape and torch.allclose(self._applied(x), values)
        require(same, "activation", name, "must act on every entry by itself, and always in the same way")
        some, expected = x[:: _POINTS // 120][:120], values[:: _POINTS // 120][:120]
        for shape in _SHAPES:
            shaped = self._applied(some.reshape(shape))
            fits = shaped.shape == torch.Size(shape) and torch.allclose(shaped.flatten(), expected)
            require(fits, "activation", name, "must act on every entry by itself, whatever the shape")
        slopes = values.diff() / x.diff()
        low, where = slopes.min(dim=0)
        require(float(low) >= -1e-9, "activation", name, f"must be monotone: it falls at {x[where]:.4g}")
        high = float(slopes.max())
        valid = f"must be at least the largest slope of {name}, {high:.6g}"
        require(high <= self.lipschitz * (1 + 1e-9), "lipschitz", self.lipschitz, valid)

    def _applied(self, x: Tensor) -> Tensor:
        """The function of a copy of x: some work in place.

        Raises:
            SettingError: if it does not take an x of this shape.
        """
        try:
            y: Tensor = self.function(x.clone())
        except Exception as error:  # whatever it raises, it does not accept such states
            name, valid = type(self.function).__name__, f"must take states of {x.dim()} dimensions"
            raise SettingError("activation", name, valid) from error
        return y

    def forward(self, x: Tensor) -> Tensor:
        """σ(x), of the shape of x."""
        y: Tensor = self.function(x)
        return y

    def extra_repr(self) -> str:
        return f"lipschitz={self.lipschitz:g}"
