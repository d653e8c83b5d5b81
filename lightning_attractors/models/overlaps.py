"""Overlaps of states with attractors, and the scale that makes logits of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CONFIDENCE_AT_ATTRACTOR = 0.99


def overlaps(states: Tensor, attractors: Tensor) -> Tensor:
    """(⟨x, φ_k⟩ − (‖φ_k‖² − n)/2) / n of states (B, N) and attractors (K, N), n the mean of all ‖φ_k‖²."""
    sizes = attractors.square().sum(dim=1)
    mean = sizes.mean()
    return (states @ attractors.T - (sizes - mean) / 2) / mean


def logit_scale(attractors: Tensor) -> float:
    """Scale at which the closest pair of attractors still has confidence 0.99 at either one."""
    found = overlaps(attractors.double(), attractors.double())
    margins = found.diagonal()[:, None] - found
    closest = float(margins.fill_diagonal_(torch.inf).min())
    odds = _CONFIDENCE_AT_ATTRACTOR / (1 - _CONFIDENCE_AT_ATTRACTOR)
    return math.log(odds * (len(attractors) - 1)) / closest
