"""Robustness in the eigenbasis of the coupling: noise on the coefficients of an image, not on its pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_attractors.errors import require

FinalStates = Callable[[Tensor], Tensor]


class SpectralProbe:
    """How far states end from their attractors when coefficients of x = Φ c are noisy (Marino et al., 2024).

    c is changed by δ with entries from N(0, σ²), so that x + Φ δ is where the system starts; the error is
    the mean of ‖x(T) − φ‖² over the states. The noise on a coefficient is as large in x as its column of Φ
    is long.

    Args:
        final_states: gives the states x(T), (B, N), of initial states (B, N), each a function of its own.
        modes: eigenvectors Φ as columns, shape (N, N), real.
        states: unperturbed initial states x, shape (M, N), at least one.
        targets: the attractors φ they belong to, shape (M, N).
        batch_size: how many states are given to ``final_states`` at a time at most, at least 1.

    Raises:
        SettingError: if the shapes do not fit, or ``batch_size`` is below 1.

    Example:
        >>> probe = SpectralProbe(lambda states: 0 * states, torch.eye(3), torch.ones(5, 3), torch.ones(5, 3))
        >>> probe.fraction_errors(1.0, torch.tensor([0.0, 1.0]))
        tensor([3., 3.], dtype=torch.float64)
    """

    def __init__(
        self, final_states: FinalStates, modes: Tensor, states: Tensor, targets: Tensor, batch_size: int = 512
    ) -> None:
        require(states.ndim == 2 and len(states) > 0, "states", tuple(states.shape), "must be (M, N), M >= 1")
        shape = tuple(states.shape)
        square = (shape[1], shape[1])
        require(tuple(targets.shape) == shape, "targets", tuple(targets.shape), f"must be {shape}: one each")
        require(tuple(modes.shape) == square, "modes", tuple(modes.shape), f"must be {square}, as the states")
        require(batch_size >= 1, "batch_size", batch_size, "must be at least 1")
        self.final_states = final_states
        self.modes, self.states, self.targets = modes, states, targets
        self.batch_size = batch_size

    def fraction_errors(
        self, sigma: float, fractions: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Errors when a fraction of each state's coefficients, chosen at random for each, is noisy.

        All fractions share one realisation: a larger one keeps the noise of a smaller and adds to it.

        Args:
            sigma: standard deviation σ_A of the noise, at least 0.
            fractions: f in [0, 1], shape (F,); ⌊f N⌉ coefficients are noisy.
            generator: source of the randomness, on the CPU.

        Returns:
            Errors, shape (F,), float64.

        Raises:
            SettingError: if ``sigma`` or a fraction lies outside its range.
        """
        inside = bool(((fractions >= 0) & (fractions <= 1)).all())
        require(inside, "fractions", fractions.tolist(), "must lie in [0, 1]")
        noise = self._noise(sigma, generator)
        places = torch.rand(noise.shape, generator=generator).argsort(dim=1).argsort(dim=1).to(noise.device)
        counts = [round(fraction * noise.shape[1]) for fraction in fractions.tolist()]
        return torch.stack([self._error(torch.where(places < count, noise, 0)) for count in counts])

    def mode_errors(self, sigma: float, generator: torch.Generator | None = None) -> Tensor:
        """Errors when one coefficient of every state is noisy, for each coefficient in turn.

        Args:
            sigma: standard deviation σ of the noise, at least 0.
            generator: source of the randomness, on the CPU.

        Returns:
            Errors, shape (N,), float64, in the order of the columns of Φ.

        Raises:
            SettingError: if ``sigma`` is negative.
        """
        noise = self._noise(sigma, generator)
        only = torch.eye(noise.shape[1], dtype=torch.bool, device=noise.device)
        return torch.stack([self._error(torch.where(mode, noise, 0)) for mode in only])

    def _noise(self, sigma: float, generator: torch.Generator | None) -> Tensor:
        require(sigma >= 0, "sigma", sigma, "must be at least 0")
        return sigma * torch.randn(self.states.shape, generator=generator).to(self.states)

    @torch.no_grad()
    def _error(self, noise: Tensor) -> Tensor:
        """The error with the given noise (M, N) on the coefficients."""
        starts = self.states + noise @ self.modes.to(noise).T
        ends = torch.cat([self.final_states(part) for part in starts.split(self.batch_size)])
        return (ends - self.targets).double().square().sum(dim=1).mean()


def robust_fraction(fractions: Tensor, errors: Tensor, scale: float, tolerance: float = 0.05) -> float:
    """The largest fraction of noisy coefficients up to which the error has degraded by at most 5 %.

    Args:
        fractions: increasing fractions, shape (F,), the first of which, usually 0, is the reference.
        errors: their errors, shape (F,).
        scale: the error that counts as a degradation by 100 %, above 0: ‖φ‖², say, that of a state at the
            origin. The reference itself will not do: states that converge leave no error but rounding.
        tolerance: degradation that is still accepted, in units of ``scale``, at least 0.

    Returns:
        The largest of the fractions before the first one beyond the tolerance.

    Raises:
        SettingError: if there is no fraction, an error is not finite, or a setting lies outside its range.

    Example:
        >>> robust_fraction(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.1, 3.0]), scale=10.0)
        0.5
    """
    fits = len(fractions) > 0 and fractions.shape == errors.shape
    require(
        fits, "errors", tuple(errors.shape), f"must be one for each of {len(fractions)} fractions, 1 or more"
    )
    require(bool(errors.isfinite().all()), "errors", errors.tolist(), "must be finite")
    require(scale > 0, "scale", scale, "must be above 0")
    require(tolerance >= 0, "tolerance", tolerance, "must be at least 0")
    within = (errors - errors[0]) <= tolerance * scale
    return float(fractions[int(within.long().cumprod(0).sum()) - 1])
