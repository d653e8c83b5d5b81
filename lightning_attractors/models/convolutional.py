"""What KrotovHopfield and its backpropagation twin share: everything but the convolution."""

from __future__ import annotations

from abc import abstractmethod
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_attractors.dynamics.plasticity import KHConv2d
from lightning_attractors.errors import require
from lightning_attractors.keywords import Unpack
from lightning_attractors.memory import require_memory
from lightning_attractors.models.activations import ActivationName, PoweredActivation
from lightning_attractors.models.base import OptimizationSettings
from lightning_attractors.models.cross_entropy import CrossEntropyClassifier


class ConvolutionalClassifier(CrossEntropyClassifier):
    """Convolution (F = K² filters, stride 1, no padding) → max-pooling → σ(·)ⁿ → flatten → linear layer.

    Powers and the linear layer are computed outside autocast: they are cheap beside the convolution, and
    powers magnify rounding. :class:`~lightning_attractors.models.activations.PoweredActivation` says how
    powers up to 50 stay finite.

    A subclass makes the convolution, as ``conv``, and bounds its outputs, :meth:`bounds`.

    Args:
        num_classes: number of classes.
        image_shape: shape (C, H, W) of the images.
        grid: K, the side of the square that K² filters form.
        kernel_size: side w of a filter, from 1 to the smaller side of the image.
        activation: σ: ``ReLU``, ``ELU``, ``GELU``, ``PReLU`` or ``rExp`` (max(0, eˣ − 1)).
        power: n, at least 1.
        pool_size: side w_pool of a pooling window, from 1 to the smaller side of the feature map.
        pool_stride: stride s_pool of the pooling, at least 1.
        **optimization: the settings of :class:`~lightning_attractors.models.base.Classifier`.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    conv: nn.Conv2d | KHConv2d

    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        grid: int,
        kernel_size: int,
        activation: ActivationName,
        power: int,
        pool_size: int,
        pool_stride: int,
        **optimization: Unpack[OptimizationSettings],
    ) -> None:
        super().__init__(num_classes, **optimization)
        names = get_args(ActivationName)
        require(grid >= 1, "grid", grid, "must be at least 1")
        require(activation in names, "activation", activation, f"must be one of {names}")
        valid = "must be from 1 to 100: beyond, float32 sees activations as 0 or as infinite"
        require(1 <= power <= 100, "power", power, valid)
        rows, columns = _pooled_size(image_shape, kernel_size, pool_size, pool_stride)
        require_memory("grid", grid, grid**2 * rows * columns * num_classes)
        self.image_shape = image_shape
        self.pool_size = pool_size
        self.pool_stride = pool_stride
        self.activation = PoweredActivation(activation, power)
        self.linear = nn.Linear(grid**2 * rows * columns, num_classes)

    @abstractmethod
    def bounds(self) -> Tensor:
        """The largest size of each filter's output for images in [0, 1], shape (F,)."""

    @property
    def filters(self) -> Tensor:
        """The filters, shape (F, C, w, w)."""
        return self.conv.weight

    def pooled(self, images: Tensor) -> Tensor:
        """Outputs of the convolution after max-pooling, for images (B, C, H, W)."""
        # Pooling with the channels last is vectorised: twice as fast, convolution included.
        # The strides of a single channel are anyone's choice; of these the convolution sees that it is last.
        last = images.permute(0, 2, 3, 1)
        images = last.flatten().view(last.shape).permute(0, 3, 1, 2)
        outputs = self.conv(images).contiguous(memory_format=torch.channels_last)
        return functional.max_pool2d(outputs, self.pool_size, self.pool_stride)

    def head(self, pooled: Tensor) -> Tensor:
        """Logits (B, num_classes) of what :meth:`pooled` gives."""
        with torch.autocast(pooled.device.type, enabled=False):
            features = self.activation(pooled.to(self.linear.weight.dtype), self.bounds())
            logits: Tensor = self.linear(features.flatten(1))
            return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, C, H, W) in [0, 1], differentiable in the images."""
        return self.head(self.pooled(images))


def _pooled_size(
    image_shape: tuple[int, int, int], kernel_size: int, pool_size: int, pool_stride: int
) -> tuple[int, int]:
    """Rows and columns of the feature maps after max-pooling.

    Raises:
        SettingError: if nothing would be left of them.
    """
    height, width = image_shape[1:]
    side = min(height, width)
    fits = 1 <= kernel_size <= side
    require(fits, "kernel_size", kernel_size, f"must be from 1 to {side}, the side of the image")
    side -= kernel_size - 1
    fits = 1 <= pool_size <= side
    require(fits, "pool_size", pool_size, f"must be from 1 to {side}, the side of the feature map")
    require(pool_stride >= 1, "pool_stride", pool_stride, "must be at least 1")
    rows, columns = ((size - kernel_size + 1 - pool_size) // pool_stride + 1 for size in (height, width))
    return rows, columns
