"""Attractors of a firing-rate network, and the eigenvectors that make them equilibria."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_attractors.dynamics.planted import Gain, check_gain
from lightning_attractors.errors import SettingError, require, require_sensible
from lightning_attractors.models.pattern_digits import Patterns, pattern_digits

# λ = 8 for the 49 pixels of the letters.
_DEFAULT_SLOPE = 8 / 7


class Planted(NamedTuple):
    """Attractors x̄ (K, N), their firing rates f(x̄) (K, N) and eigenvalues λ (K,), all float64."""

    attractors: Tensor
    rates: Tensor
    eigenvalues: Tensor


def coupling_scale(num_nodes: int) -> float:
    """β = 1/√N."""
    return 1 / math.sqrt(num_nodes)


def plant(
    gain: Gain,
    eigenvalue: float | list[float] | None,
    patterns: Patterns,
    num_classes: int,
    num_nodes: int,
    picture_shape: tuple[int, int, int] | None,
    block: int | None,
) -> Planted:
    """Attractors whose entries are fixed points x = βλ f(x) of a node, in the given patterns.

    The arguments are those of :class:`~lightning_attractors.models.CVFR`, with the number of nodes and, where
    these are the pixels of images, the shape (C, H, W) of these.

    Raises:
        SettingError: if one of them lies outside its range.
    """
    valid = f"must be from 2 to the number of nodes, {num_nodes}"
    require(2 <= num_classes <= num_nodes, "num_classes", num_classes, valid)
    check_gain(gain)
    beta = coupling_scale(num_nodes)
    eigenvalues = _eigenvalues(eigenvalue, num_classes, beta)
    alphabets = _alphabets(gain, eigenvalues, beta)
    zero = int((alphabets[0] == 0).nonzero())
    digits = pattern_digits(patterns, num_classes, num_nodes, picture_shape, alphabets.shape[1], zero, block)
    attractors = alphabets.gather(1, digits)
    rates = gain(attractors)
    rank = int(torch.linalg.matrix_rank(rates))
    valid = f"the firing rates of {num_classes} attractors must be linearly independent"
    require(rank == num_classes, "patterns", f"rank {rank}", valid)
    return Planted(attractors, rates, eigenvalues)


def _eigenvalues(eigenvalue: float | list[float] | None, num_classes: int, beta: float) -> Tensor:
    """One λ per class, shape (K,), float64."""
    if eigenvalue is None:
        eigenvalue = _DEFAULT_SLOPE / beta
    values = torch.tensor(eigenvalue, dtype=torch.float64)
    valid = "must be above 0 and finite"
    require(bool(((values > 0) & values.isfinite()).all()), "eigenvalue", eigenvalue, valid)
    fits = values.ndim == 0 or len(values) == num_classes
    require(fits, "eigenvalue", eigenvalue, f"must be one number, or one for each of {num_classes} classes")
    for value in values.flatten().tolist():
        require_sensible("eigenvalue", value)
    return values.expand(num_classes)


def _alphabets(gain: Gain, values: Tensor, beta: float) -> Tensor:
    """The fixed points of a node for every class's λ, shape (K, number of them), float64."""
    alphabets = [gain.alphabet(beta * value) for value in values.tolist()]
    for value, alphabet in zip(values.tolist(), alphabets, strict=True):
        if len(alphabet) < 2 or len(alphabet) != len(alphabets[0]):
            valid = (
                f"must give a node as many fixed points as every class has, and 2 at least, not {alphabet}"
            )
            raise SettingError("eigenvalue", value, valid)
    return torch.tensor(alphabets, dtype=torch.float64)
