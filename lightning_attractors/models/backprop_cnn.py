"""BackpropCNN: the architecture of KrotovHopfield, trained end to end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attractors.keywords import Unpack
from lightning_attractors.models.activations import ActivationName
from lightning_attractors.models.base import OPTIMIZATION_SETTINGS, FurtherOptimizationSettings
from lightning_attractors.models.convolutional import ConvolutionalClassifier
from lightning_attractors.optim import OptimizerCallable


class BackpropCNN(ConvolutionalClassifier):
    """Convolution → max-pooling → σ(·)ⁿ → linear layer, all learned with labels (Torvik, 2023, BP-models).

    The twin of :class:`~lightning_attractors.models.KrotovHopfield`, with an ordinary convolution.

    Args:
        num_classes: number of classes.
        image_shape: shape (C, H, W) of the images.
        grid: K, the side of the square that K² filters form, at least 1.
        kernel_size: side w of a filter, from 1 to the smaller side of the image.
        activation: σ: ``ReLU``, ``ELU``, ``GELU``, ``PReLU`` or ``rExp`` (max(0, eˣ − 1)).
        power: n, at least 1.
        pool_size: side w_pool of a pooling window, from 1 to the smaller side of the feature map.
        pool_stride: stride s_pool of the pooling, at least 1.
        optimizer: makes the optimiser of the parameters.
        **optimization: further settings of :class:`~lightning_attractors.models.base.Classifier`.

    Raises:
        SettingError: if a setting lies outside its range.

    Example:
        >>> model = BackpropCNN(num_classes=3, image_shape=(1, 7, 7), grid=2, pool_size=2)
        >>> model(torch.rand(5, 1, 7, 7)).shape
        torch.Size([5, 3])
    """

    conv: nn.Conv2d

    def __init__(
        self,
        num_classes: int = 10,
        image_shape: tuple[int, int, int] = (3, 32, 32),
        grid: int = 10,
        kernel_size: int = 4,
        activation: ActivationName = "ELU",
        power: int = 4,
        pool_size: int = 5,
        pool_stride: int = 2,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        **optimization: Unpack[FurtherOptimizationSettings],
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            image_shape=image_shape,
            grid=grid,
            kernel_size=kernel_size,
            activation=activation,
            power=power,
            pool_size=pool_size,
            pool_stride=pool_stride,
            optimizer=optimizer,
            **optimization,
        )
        self.save_hyperparameters(ignore=OPTIMIZATION_SETTINGS)
        self.conv = nn.Conv2d(image_shape[0], grid**2, kernel_size)

    def bounds(self) -> Tensor:
        """The sums of the filters' absolute entries, and biases."""
        sizes = self.filters.abs().sum(dim=(1, 2, 3))
        return sizes if self.conv.bias is None else sizes + self.conv.bias.abs()
