"""Flows that do not take two inputs apart: down the gradient of a convex potential, by explicit steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_attractors.dynamics.integrate import STEPS, IntegratorName, integrate
from lightning_attractors.dynamics.nonexpansive.field import GradientField
from lightning_attractors.dynamics.nonexpansive.monotone import Monotone
from lightning_attractors.dynamics.nonexpansive.operators import Operator
from lightning_attractors.errors import require

_MOST_STEPS = 1000


class GradientFlow(nn.Module):
    """x(t) of ẋ = −Aᵀσ(Ax + b), x(0) = x, by explicit steps of length h = t/n.

    An Euler step x − h Aᵀσ(Ax + b) is non-expansive in L2 when h ‖A‖² L ≤ 2, and so are those of Heun and the
    classical Runge-Kutta method, whose circle-contractivity radius is 1 too (Sherry et al., 2023,
    arXiv 2306.17332). n = ⌈t ‖A‖² L / 2⌉ sub-steps, with a norm from above, see to that at every call.

    Args:
        operator: A.
        span: t, above 0. With t = 2/L, ‖A‖ ≤ 1 takes one sub-step.
        activation: σ.
        method: ``euler``, ``heun`` or ``rk4``.
        substeps: n, if it is not to follow from the norm: then nothing is promised; at least 1.

    Attributes:
        bias: b, one number per feature or channel of A x.

    Raises:
        SettingError: if a setting lies outside its range; in use, if n would be above 1000.
        NonFiniteError: in use, if the weight of A is not finite.

    Example:
        >>> from lightning_attractors.dynamics.nonexpansive import DenseOperator
        >>> flow = GradientFlow(DenseOperator(8, 16), activation=Monotone("Tanh"))
        >>> x, y = torch.randn(2, 8)
        >>> bool((flow(x) - flow(y)).norm() <= (x - y).norm())
        True
    """

    def __init__(
        self,
        operator: Operator,
        span: float = 2.0,
        activation: Monotone | None = None,
        method: IntegratorName = "euler",
        substeps: int | None = None,
    ) -> None:
        super().__init__()
        require(0 < span < math.inf, "span", span, "must be finite and above 0")
        require(method in STEPS, "method", method, f"must be one of {', '.join(STEPS)}")
        require(substeps is None or substeps >= 1, "substeps", substeps, "must be null or at least 1")
        self.operator = operator
        self.activation = Monotone() if activation is None else activation
        self.bias = nn.Parameter(torch.zeros(len(operator.weight)))
        self.span, self.method, self.substeps = span, method, substeps

    def radius(self, substeps: int) -> float:
        """The largest ‖A‖ for which so many sub-steps are enough."""
        return math.sqrt(2 * substeps / (self.span * self.activation.lipschitz))

    def count(self) -> int:
        """n, the number of sub-steps, with the present weight."""
        if self.substeps is not None:
            return self.substeps
        norm = self.operator.checked_norm()
        if self._needed(norm) > 1:
            # the quick norm may be another one on another machine, and n must not depend on that
            norm = self.operator.norm_bound()
        needed = self._needed(norm)
        valid = f"needs {needed:.3g} sub-steps where ‖A‖ = {norm:.3g}, and at most {_MOST_STEPS} are taken"
        require(needed <= _MOST_STEPS, "span", self.span, valid)
        return max(1, math.ceil(needed))

    def _needed(self, norm: float) -> float:
        return self.span * self.activation.lipschitz / 2 * norm**2

    @property
    def field(self) -> GradientField:
        """−Aᵀσ(Ax + b), as the weights are now."""
        return GradientField(self.operator, self.bias, self.activation)

    def forward(self, x: Tensor) -> Tensor:
        """x(t), for x of shape (B, features), or (B, channels, H, W) where A is a convolution."""
        count = self.count()
        return integrate(self.field, x, self.span / count, count, STEPS[self.method])

    def gain_bound(self) -> float:
        """Bound of ‖f(x) − f(y)‖ / ‖x − y‖: 1 where every step is proved non-expansive."""
        count = self.count()
        # computed as in count, so that rounding cannot lift it above 2
        stiffness = 2 * (self._needed(self.operator.norm_bound()) / count)
        if stiffness <= 2:
            return 1.0
        # 1 − hμ for slopes μ in [0, ‖A‖²L] bounds Euler's step; Taylor's polynomial at −h‖A‖²L the others
        order = {"euler": 1, "heun": 2, "rk4": 4}[self.method]
        taylor = sum(stiffness**power / math.factorial(power) for power in range(order + 1))
        try:
            return float((stiffness - 1 if order == 1 else taylor) ** count)
        except OverflowError:
            return math.inf

    def extra_repr(self) -> str:
        return f"span={self.span:g}, method={self.method!r}, substeps={self.substeps}"
