"""The flow of nmODE by a solver, for what has no flow map."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attractors.dynamics.nmode.decay import Decaying
from lightning_attractors.dynamics.nmode.field import NMODEField
from lightning_attractors.extras import load_extra

# dopri5 at these relative and absolute tolerances.
_TOLERANCES = {torch.float32: (1e-5, 1e-6), torch.float64: (1e-10, 1e-11)}


class SolvedFlow(Decaying):
    """γ ↦ y(t̄) by dopri5, for what has no one scalar flow map; differentiable through the solver.

    ẏ = −λy + f_k{y + f_{k−1}[y + … + f_1(y + γ)]}, all f = sin². Each neuron has a time and a start of its
    own: with s = t/t̄ all of them are integrated over [0, 1]. Lower precision than float32, also under
    autocast, is integrated in float32. Where γ is nan or infinite, the result is nan.

    Args:
        decay: λ, above 0.
        time: t̄, above 0; a number or one per neuron.
        initial: y(0); a number or one per neuron.
        order: k.
        trainable_decay: whether λ is trained.

    Raises:
        SettingError: without the package torchdiffeq, which is an extra.
        NonFiniteError: in use, if a trained λ has diverged.
    """

    time: Tensor
    initial: Tensor

    def __init__(
        self, decay: float, time: float | Tensor, initial: float | Tensor, order: int, trainable_decay: bool
    ) -> None:
        load_extra("torchdiffeq", "integration", "dopri5")
        super().__init__(decay, trainable_decay)
        self.register_buffer("time", torch.as_tensor(time), persistent=False)
        self.register_buffer("initial", torch.as_tensor(initial), persistent=False)
        self.order = order

    def forward(self, gamma: Tensor) -> Tensor:
        """y(t̄) for γ of shape (..., neurons)."""
        from torchdiffeq import odeint  # here: the layer is of use without it

        exact = gamma if gamma.dtype == torch.float64 else gamma.float()
        finite = exact.isfinite()
        known = torch.where(finite, exact, 0)  # one nan would stop the whole batch
        relative, absolute = _TOLERANCES[exact.dtype]
        now = self.checked_decay()
        decay = now if self.log_decay is None else self.log_decay.to(exact).exp()
        field, times = NMODEField(known, decay, self.order), self.time.to(exact)

        span = torch.tensor([0.0, 1.0], dtype=exact.dtype, device=exact.device)
        start = self.initial.to(exact).expand_as(exact)

        def scaled(_: Tensor, y: Tensor) -> Tensor:
            return times * field(y)

        end = odeint(scaled, start, span, rtol=relative, atol=absolute, method="dopri5")[-1]
        return torch.where(finite, end, torch.nan)

    def extra_repr(self) -> str:
        return f"decay={self.decay:g}, order={self.order}"
