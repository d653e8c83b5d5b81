"""How close final states come to their attractors, as sums over the global batch."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class _Share(Metric):
    """The share of states that count, over the global batch."""

    full_state_update = False
    higher_is_better = True
    hits: Tensor
    total: Tensor

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, states: Tensor, attractors: Tensor) -> None:
        """Count final states (B, N) against the attractors (B, N) of their classes."""
        self.hits += self._counts(states, attractors).sum()
        self.total += len(states)

    def compute(self) -> Tensor:
        """The share, in [0, 1]."""
        return self.hits / self.total

    @abstractmethod
    def _counts(self, states: Tensor, attractors: Tensor) -> Tensor:
        """Which of the states count, shape (B,), boolean."""


class AttractorAccuracy(_Share):
    """Share of states whose sign pattern agrees with their attractor's: H of Marino et al. (2024), eq. 7.

    The similarity of a state x with its attractor φ is mean_i sign(x_i) sign(φ_i), in [−1, 1]; a state
    counts when its similarity reaches the threshold; 0.95 is agreement in 97.5 % of the nodes.

    Args:
        threshold: least similarity that counts, in (−1, 1]; 1 counts perfect states only.

    Example:
        >>> metric = AttractorAccuracy(threshold=1.0)
        >>> target = torch.tensor([[0.5, -0.5], [0.5, -0.5]])
        >>> metric(torch.tensor([[0.4, -0.6], [0.4, 0.6]]), target)
        tensor(0.5000)
    """

    def __init__(self, threshold: float = 0.95, **kwargs: Any) -> None:
        super().__init__(threshold, **kwargs)

    def _counts(self, states: Tensor, attractors: Tensor) -> Tensor:
        agreement = (states.sign() * attractors.sign()).sum(dim=1)
        # Sums of signs are whole numbers: the slack for rounding keeps the threshold itself inside.
        return agreement >= self.threshold * states.shape[1] - 1e-3


class DistanceAccuracy(_Share):
    """Share of states that end near their attractor: the stricter criterion of Chicchi et al. (2024).

    Args:
        threshold: largest L2 distance that counts, in the units of the states, above 0.

    Example:
        >>> metric = DistanceAccuracy(threshold=0.5)
        >>> metric(torch.tensor([[1.0, 0.3], [1.0, 0.6]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        tensor(0.5000)
    """

    def _counts(self, states: Tensor, attractors: Tensor) -> Tensor:
        return (states - attractors).norm(dim=1) <= self.threshold


class AccuracySpread(Metric):
    """Standard deviation of the accuracy across realisations of a model's noise.

    Args:
        num_realisations: how many there are, at least 2.

    Example:
        >>> metric = AccuracySpread(2)
        >>> metric.update(torch.tensor([True, True]), realisation=0)
        >>> metric.update(torch.tensor([True, False]), realisation=1)
        >>> metric.compute()  # of 1.0 and 0.5
        tensor(0.3536)
    """

    full_state_update = False
    higher_is_better = False
    hits: Tensor
    total: Tensor

    def __init__(self, num_realisations: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("hits", torch.zeros(num_realisations), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(num_realisations), dist_reduce_fx="sum")

    def update(self, correct: Tensor, realisation: int) -> None:
        """Count correct predictions (B,), boolean, of one realisation."""
        self.hits[realisation] += correct.sum()
        self.total[realisation] += len(correct)

    def compute(self) -> Tensor:
        """The sample standard deviation of the accuracies, in [0, 1]."""
        return (self.hits / self.total).std()


class Overlap(Metric):
    """Mean overlap m_f = mean_j x_j · φ_j / ‖φ_j‖² (Marino et al., 2024, eq. 5, where ‖φ‖² = N a²).

    1 when every state is its attractor.
    """

    full_state_update = False
    higher_is_better = True
    sum: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("sum", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, states: Tensor, attractors: Tensor) -> None:
        """Add final states (B, N) and the attractors (B, N) of their classes."""
        products = (states * attractors).sum(dim=1) / attractors.square().sum(dim=1)
        self.sum += products.sum()
        self.total += len(states)

    def compute(self) -> Tensor:
        """The mean overlap."""
        return self.sum / self.total


class TrajectoryError(Metric):
    """Mean squared distance to the attractor over time: MSE(t) of Marino et al. (2024), eq. 6.

    Args:
        num_times: number of recorded times.
    """

    full_state_update = False
    higher_is_better = False
    sum: Tensor
    total: Tensor

    def __init__(self, num_times: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("sum", torch.zeros(num_times), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, errors: Tensor) -> None:
        """Add squared distances (T, B) of B states to their attractors, at each time."""
        self.sum += errors.sum(dim=1)
        self.total += errors.shape[1]

    def compute(self) -> Tensor:
        """MSE(t), shape (T,)."""
        return self.sum / self.total
