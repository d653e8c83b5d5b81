"""NMODELayer: W x + b, then the flow map."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_attractors.dynamics.flow_map import FlowMap


class NMODELayer(nn.Module):
    """y(t̄) of ẏ = −λy + sin²(y + W x + b), y(0) = 0.

    Args:
        in_features: size of x.
        out_features: number of neurons.
        decay: λ, above 0.
        time: t̄, above 0.
    """

    def __init__(self, in_features: int, out_features: int, decay: float = 3.0, time: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.flow = FlowMap(decay, time)

    @property
    def integration(self) -> str:
        """What integrates, in one line."""
        return f"flow map, λ = {self.flow.decay:g}, t̄ = {self.flow.time:g}"

    def forward(self, x: Tensor) -> Tensor:
        """y(t̄) (…, out_features) of x (…, in_features)."""
        result: Tensor = self.flow(self.linear(x))
        return result
