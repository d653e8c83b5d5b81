"""The nmODE layer: y(t̄) of ẏ = −λy + sin²(y + Wx + b), by the flow map where it applies, else by a solver."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from lightning_attractors.dynamics.nmode.flow_map import FlowMap
from lightning_attractors.dynamics.nmode.solved_flow import SolvedFlow
from lightning_attractors.errors import require

_log = logging.getLogger(__name__)


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
