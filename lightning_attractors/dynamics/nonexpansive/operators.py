"""Linear maps that know how large they are, their adjoints, and how to be brought near an isometry."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_attractors.errors import NonFiniteError, require
from lightning_attractors.linalg import (
    Padding,
    convolution_norm,
    matrix_norm,
    newton_schulz_step,
    quick_convolution_norm,
    quick_matrix_norm,
)

# One Newton-Schulz step maps singular values in [0, 2] to at most 1, but for taps that are cut off.
_RUNAWAY = 1.1
# The quick norm is that close to the true one, and may take another of its ways on another machine.
_SAME_NORM = 1.3
# Below the radius, at the least: more than the slack of the tight norm, which may have to decide there.
_ROOM = 1e-8


class Operator(nn.Module, ABC):
    """A linear map A with trained entries, without a bias.

    The norm that steps and scales depend on is recomputed whenever the weight has changed, whoever changed
    it and how. It is saved with the weight; when a checkpoint has another one than its weight, a warning says
    so, and what was recomputed counts.

    Attributes:
        weight: the entries; the first dimension is that of the outputs.
    """

    weight: nn.Parameter

    def __init__(self) -> None:
        super().__init__()
        self._quick: tuple[Tensor, str, float] | None = None
        self._tight: tuple[Tensor, str, float] | None = None
        self._fixed = False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y."""

    @abstractmethod
    def _quick_norm(self, weight: Tensor) -> float: ...

    @abstractmethod
    def _tight_norm(self, weight: Tensor) -> float: ...

    @abstractmethod
    def _newton_schulz(self, weight: Tensor) -> tuple[Tensor, float]:
        """(3 W − W Wᵀ W) / 2 and its norm from above, or infinity where that could be above 1.1."""

    @abstractmethod
    def sums(self) -> tuple[int, int]:
        """How many products an output of A and one of Aᵀ are the sum of."""

    @property
    def norm(self) -> float:
        """‖A‖₂ from above, cheaply; infinite where an entry is not finite."""
        weight = self.weight.detach()
        if self._quick is None or not self._is_of(self._quick[:2], weight):
            self._quick = weight.clone(), self.extra_repr(), self._quick_norm(weight)
        return self._quick[2]

    def norm_bound(self) -> float:
        """‖A‖₂ from above, in float64 and close to it: for certificates."""
        weight = self.weight.detach()
        if self._tight is None or not self._is_of(self._tight[:2], weight):
            self._tight = weight.clone(), self.extra_repr(), self._tight_norm(weight)
        return min(self._tight[2], self.norm)

    def _is_of(self, known: tuple[Tensor, str], weight: Tensor) -> bool:
        """Whether a norm is that of the weight, and of what else it depends on, such as the padding."""
        return self._fixed or (known[1] == self.extra_repr() and _same(known[0], weight))

    @torch.no_grad()
    def retract_(self, radius: float) -> None:
        """Bring A nearer to an isometry times ``radius``, and ‖A‖₂ to at most ``radius``, in place.

        One Newton-Schulz step of the polar decomposition, s ↦ (3s − s³)/2 on singular values relative to the
        radius. An optimiser's step is small enough for one to keep them near 1, where a gradient passes a
        layer at its full size; scaling down to the largest one alone would let the others fade.

        Raises:
            NonFiniteError: if an entry is not finite.
        """
        with torch.autocast(self.weight.device.type, enabled=False):
            weight, norm = self._newton_schulz(self.weight / radius)
            scale = radius
            if not norm <= _RUNAWAY:  # weights as they are: each entry is to be rounded only once
                weight, norm, scale = self.weight, self.checked_norm() / radius, 1.0
            room = self._rounding()
            self.weight.copy_(weight * (scale * (1 - room) / max(1 - room, norm)))
        quick = radius * min(norm * (1 + 0.5 * room), 1 - 0.5 * room)
        self._quick = self.weight.detach().clone(), self.extra_repr(), quick

    def _rounding(self) -> float:
        """More than twice what rounding every entry by itself can add to the norm, relative to it.

        Of k × k taps each has a norm of its own: ‖E‖₂ ≤ k ‖E‖_F. And ‖W‖_F ≤ √min(O, I) ‖A‖₂.
        """
        taps = self.weight[0, 0].numel()
        roots = math.sqrt(taps * min(self.weight.shape[:2]))
        return max(_ROOM, torch.finfo(self.weight.dtype).eps * (roots + 8))

    def checked_norm(self) -> float:
        """The quick norm.

        Raises:
            NonFiniteError: if an entry is not finite.
        """
        norm = self.norm
        if not math.isfinite(norm):
            shape = tuple(self.weight.shape)
            cure = "lower the learning rate, or take an earlier checkpoint"
            raise NonFiniteError(f"the weight of shape {shape} is not finite: {cure}")
        return norm

    def get_extra_state(self) -> Tensor:
        # not what a retraction has left, which may be far above
        return torch.tensor(self._quick_norm(self.weight.detach()), dtype=torch.float64)

    def set_extra_state(self, state: Any) -> None:
        said, norm = float(state), self.norm
        if not norm / _SAME_NORM <= said <= norm * _SAME_NORM and said != norm:
            shape = tuple(self.weight.shape)
            warnings.warn(
                f"the checkpoint gives ‖A‖ = {said:.4g} for the weight of shape {shape}, which has "
                f"{norm:.4g}: recomputed",
                stacklevel=2,
            )


class DenseOperator(Operator):
    """A of shape (outputs, inputs), on vectors of shape (..., inputs).

    Args:
        inputs: at least 1.
        outputs: at least 1.

    Raises:
        SettingError: if a size is below 1.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        require(inputs >= 1, "inputs", inputs, "must be at least 1")
        require(outputs >= 1, "outputs", outputs, "must be at least 1")
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)

    def adjoint(self, y: Tensor) -> Tensor:
        return functional.linear(y, self.weight.T)

    def _quick_norm(self, weight: Tensor) -> float:
        return quick_matrix_norm(weight)

    def _tight_norm(self, weight: Tensor) -> float:
        return matrix_norm(weight)

    def _newton_schulz(self, weight: Tensor) -> tuple[Tensor, float]:
        return newton_schulz_step(weight)

    def sums(self) -> tuple[int, int]:
        return self.weight.shape[1], self.weight.shape[0]


class ConvolutionOperator(Operator):
    """A convolution of stride 1 that keeps the size of images, shape (B, channels, H, W).

    It starts as an orthogonal matrix at the centre of the kernel, with a tenth of noise around it.

    Args:
        inputs: channels of x, at least 1.
        outputs: channels of A x, at least 1.
        kernel_size: k, odd, no larger than the images.
        image_size: height and width of the images, on which the norm depends.
        padding: ``zeros`` or ``circular``.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        image_size: tuple[int, int],
        padding: Padding = "zeros",
    ) -> None:
        super().__init__()
        require(inputs >= 1, "inputs", inputs, "must be at least 1")
        require(outputs >= 1, "outputs", outputs, "must be at least 1")
        require(padding in ("zeros", "circular"), "padding", padding, "must be zeros or circular")
        odd = kernel_size >= 1 and kernel_size % 2 == 1
        require(odd, "kernel_size", kernel_size, "must be odd")
        fits = kernel_size <= min(image_size)
        require(fits, "kernel_size", kernel_size, f"must not be larger than the images, {image_size}")
        self.image_size, self.padding = (image_size[0], image_size[1]), padding
        self.reach = kernel_size // 2
        centre = nn.init.orthogonal_(torch.empty(outputs, inputs))
        weight = 0.1 * torch.randn(outputs, inputs, kernel_size, kernel_size)
        weight *= (self.reach > 0) / (inputs**0.5 * kernel_size)
        weight[:, :, self.reach, self.reach] += centre
        self.weight = nn.Parameter(weight)
        self.retract_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._convolve(y, self.weight.flip(2, 3).transpose(0, 1))

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        size = tuple(x.shape[-2:])
        require(size == self.image_size, "images", size, f"must be of {self.image_size}, as the norm is")
        if self.padding == "zeros" or self.reach == 0:
            return functional.conv2d(x, weight, padding=self.reach)
        return functional.conv2d(functional.pad(x, (self.reach,) * 4, mode="circular"), weight)

    def _quick_norm(self, weight: Tensor) -> float:
        return quick_convolution_norm(weight, self.image_size, self.padding)

    def _tight_norm(self, weight: Tensor) -> float:
        return convolution_norm(weight, self.image_size, self.padding)

    def _newton_schulz(self, weight: Tensor) -> tuple[Tensor, float]:
        if weight.shape[-1] == 1:
            matrix, norm = newton_schulz_step(weight[:, :, 0, 0])
            return matrix[:, :, None, None], norm
        # W Wᵀ W has 3k − 2 taps per axis; those beyond the kernel, which are small, are cut off
        margin = weight.shape[-1] - 1
        squared = functional.conv2d(weight, weight, padding=margin)
        weight = 1.5 * weight - 0.5 * functional.conv_transpose2d(squared, weight, padding=margin)
        return weight, self._quick_norm(weight)

    def sums(self) -> tuple[int, int]:
        outputs, inputs, *kernel = self.weight.shape
        return inputs * math.prod(kernel), outputs * math.prod(kernel)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, images {self.image_size}, padding={self.padding!r}"


@contextmanager
def fixed_norms(module: nn.Module) -> Iterator[None]:
    """The norms of all operators in a module are those that they have now, and no longer asked of weights.

    For a graph that is exported, which is to hold them as numbers.
    """
    operators = [part for part in module.modules() if isinstance(part, Operator)]
    for operator in operators:
        operator.norm_bound()
        operator._fixed = True
    try:
        yield
    finally:
        for operator in operators:
            operator._fixed = False


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
