"""The nmODE layer: y(t̄) of ẏ = −λy + sin²(y + Wx + b), by the flow map where it applies, else by a solver."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torchdiffeq import odeint

from lightning_attractors.dynamics.flow_map import Decaying, FlowMap
from lightning_attractors.errors import require

_log = logging.getLogger(__name__)
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
        NonFiniteError: in use, if a trained λ has diverged.
    """

    time: Tensor
    initial: Tensor

    def __init__(
        self, decay: float, time: float | Tensor, initial: float | Tensor, order: int, trainable_decay: bool
    ) -> None:
        super().__init__(decay, trainable_decay)
        self.register_buffer("time", torch.as_tensor(time), persistent=False)
        self.register_buffer("initial", torch.as_tensor(initial), persistent=False)
        self.order = order

    def forward(self, gamma: Tensor) -> Tensor:
        """y(t̄) for γ of shape (..., neurons)."""
        exact = gamma if gamma.dtype == torch.float64 else gamma.float()
        finite = exact.isfinite()
        known = torch.where(finite, exact, 0)  # one nan would stop the whole batch
        relative, absolute = _TOLERANCES[exact.dtype]
        now = self.checked_decay()
        decay = now if self.log_decay is None else self.log_decay.to(exact).exp()
        times = self.time.to(exact)

        def field(_: Tensor, y: Tensor) -> Tensor:
            drive = known
            for _order in range(self.order):
                drive = (y + drive).sin().square()
            return times * (drive - decay * y)

        span = torch.tensor([0.0, 1.0], dtype=exact.dtype, device=exact.device)
        start = self.initial.to(exact).expand_as(exact)
        end = odeint(field, start, span, rtol=relative, atol=absolute, method="dopri5")[-1]
        return torch.where(finite, end, torch.nan)

    def extra_repr(self) -> str:
        return f"decay={self.decay:g}, order={self.order}"


class NMODELayer(nn.Module):
    """y(t̄) of ẏ = −λy + sin²(y + γ), γ = Wx + b, y(0) = y₀ (Luo, He and Yi, 2024).

    With y₀ = 0, one t̄ for all and k = 1, the integration is the scalar :class:`FlowMap`. Otherwise it is
    left to dopri5, which is slower; that is logged once, here, as a warning.

    Outside autocast the result has the dtype of x; under autocast it is float32.

    Args:
        in_features: size of x.
        out_features: number of neurons.
        decay: λ, above 0; at or below 1 with a warning.
        time: t̄, above 0; a number, or a tensor of shape (out_features,).
        initial: y₀; a number, or a tensor of shape (out_features,).
        order: k of the generalised ẏ = −λy + f_k{y + f_{k−1}[y + … + f_1(y + γ)]}, all f = sin²; at least 1.
        trainable_decay: whether λ is trained.

    Attributes:
        linear: W and b.
        flow: the :class:`FlowMap` or :class:`SolvedFlow`.
        integration: what integrates, in one line.

    Raises:
        SettingError: if a setting is out of range or of the wrong shape.

    Example:
        >>> layer = NMODELayer(784, 2048)
        >>> layer(torch.zeros(5, 784)).shape
        torch.Size([5, 2048])
        >>> layer.integration
        'flow map, λ = 3, t̄ = 1'
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        decay: float = 3.0,
        time: float | Tensor = 1.0,
        initial: float | Tensor = 0.0,
        order: int = 1,
        trainable_decay: bool = False,
    ) -> None:
        super().__init__()
        require(in_features > 0, "in_features", in_features, "must be above 0")
        require(out_features > 0, "out_features", out_features, "must be above 0")
        require(order >= 1, "order", order, "must be at least 1")
        times = _per_neuron("time", time, out_features)
        start = _per_neuron("initial", initial, out_features)
        require(bool((times > 0).all()), "time", time, "must be above 0")
        self.linear = nn.Linear(in_features, out_features)
        reason = _why_not_tabulated(times, start, order)
        if reason is None:
            self.flow: nn.Module = FlowMap(decay, float(times), trainable_decay)
            self.integration = f"flow map, λ = {decay:g}, t̄ = {float(times):g}"
        else:
            self.flow = SolvedFlow(decay, times, start, order, trainable_decay)
            self.integration = f"dopri5, because {reason}"
        level = logging.INFO if reason is None else logging.WARNING
        _log.log(level, "nmODE layer: %s", self.integration)

    def forward(self, x: Tensor) -> Tensor:
        """y(t̄), shape (..., out_features), for x of shape (..., in_features)."""
        y: Tensor = self.flow(self.linear(x))
        return y if torch.is_autocast_enabled(x.device.type) else y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"integration={self.integration!r}"


def _per_neuron(setting: str, value: float | Tensor, neurons: int) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    fits = tensor.dim() == 0 or tensor.shape == (neurons,)
    require(fits, setting, tuple(tensor.shape), f"must be a number or have shape ({neurons},)")
    require(bool(tensor.isfinite().all()), setting, value, "must be finite")
    return tensor


def _why_not_tabulated(time: Tensor, initial: Tensor, order: int) -> str | None:
    if order > 1:
        return f"order k = {order} > 1"
    if bool((initial != 0).any()):
        return "y(0) ≠ 0"
    return "t̄ is per neuron" if time.dim() else None
