"""The layer of nmODE (Luo, He and Yi, 2024): a linear map, then the flow."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_attractors.dynamics.flow_map import FlowMap


class NMODELayer(nn.Module):
    """x ↦ Y(Wx + b), where Y is the flow map of ẏ = −λy + sin²(y + γ), y(0) = 0.

    Args:
        in_features: number of inputs.
        out_features: number of neurons.
        decay: λ, above 0.
        time: t̄, above 0.
    """

    def __init__(self, in_features: int, out_features: int, decay: float = 3.0, time: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.flow = FlowMap(decay, time)

    def forward(self, x: Tensor) -> Tensor:
        """y(t̄), shape (..., out_features), of inputs (..., in_features)."""
        result: Tensor = self.flow(self.linear(x))
        return result
