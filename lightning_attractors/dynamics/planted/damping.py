r"""How noise is damped near attractors: forms of d, functions of the scaled distances.

With u_k = ‖x − x̄⁽ᵏ⁾‖²/D², both are 0 at every attractor, beside which d ≈ 2 u_k where D² is
``damping_scale``, and 1 far away.

- ``published``: tanh(2 ∏_k u_k). Inside the attractors' hull, where u_k < 1, it falls exponentially with
  their number, and so lies near 0 between an image and an attractor, and under strong attacks.
- ``saturating``: ∏_k tanh(2 u_k + (4 u_k)³). A factor follows tanh(2 u) beside its attractor, is 0.9 at half
  the distance between two of them, u = ¼, and 1 within 10⁻⁵ from u = 0.43 on. At the mean of all attractors
  u is about ½, so that d is near 1 away from all of them however many they are.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_attractors.errors import require

DampingName = Literal["saturating", "published"]
# e³ = 20: from tanh 20 on, d is 1 to the last bit of float64.
_SATURATED = 3.0


def damping_scale(attractors: Tensor) -> float:
    """D²: the geometric mean of the squared distances between attractors (K, N), K ≥ 2."""
    return float(torch.nn.functional.pdist(attractors.double()).square().log().mean().exp())


def check_damping(name: str) -> None:
    """Raise unless there is a form of that name.

    Raises:
        SettingError: naming the forms.
    """
    require(name in get_args(DampingName), "damping", name, f"must be one of {sorted(get_args(DampingName))}")


def damping_of(name: DampingName, distances: Tensor) -> Tensor:
    """D in [0, 1], shape (B, 1), at the scaled squared distances u (B, K) above 0; differentiable."""
    if name == "published":
        return _doubled_product(distances).tanh()
    return _exponents(distances).tanh().prod(dim=1, keepdim=True)


def damping_slopes(name: DampingName, distances: Tensor) -> Tensor:
    """∂d/∂u_k, shape (B, K), at u (B, K) above 0."""
    if name == "published":
        product = _doubled_product(distances)
        return (1 - product.tanh().square()) * (product / distances)
    factors = _exponents(distances).tanh()
    others = factors.prod(dim=1, keepdim=True) / factors
    return others * (1 - factors.square()) * (2 + 192 * distances.square())


def _doubled_product(distances: Tensor) -> Tensor:
    """2 ∏_k of distances (B, K), shape (B, 1), up to where tanh is 1; in logarithms, against overflow."""
    total = distances.log().sum(dim=1, keepdim=True) + math.log(2)
    return total.clamp(max=_SATURATED).exp()


def _exponents(distances: Tensor) -> Tensor:
    """2 u + (4 u)³."""
    return 2 * distances + 64 * distances * distances.square()
