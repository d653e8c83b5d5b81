"""Backbones: anything that turns images into features serves; these two have a config."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from lightning_attractors.errors import SettingError, require
from lightning_attractors.memory import require_memory
from lightning_attractors.models.evaluation_mode import evaluating
from lightning_attractors.reading import UNREADABLE

_MOST_PIXELS = 4096  # nodes of 64 × 64 pixels have 17 million couplings


class ConvBackbone(nn.Sequential):
    """Convolutions, each followed by a ReLU: all of them layers that interval propagation supports.

    The padding is ⌊(kernel size − 1)/2⌋ on every side.

    Args:
        in_channels: channels of the images, at least 1.
        channels: channels of every convolution, at least one number, each at least 1.
        kernel_sizes: sides of their filters, as many, each at least 1.
        strides: their strides, as many, each at least 1.

    Raises:
        SettingError: if a setting lies outside its range, or the lengths differ.

    Example:
        >>> backbone = ConvBackbone(1, channels=[8, 16], kernel_sizes=[4, 4], strides=[2, 2])
        >>> backbone(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 16, 7, 7])
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: list[int] | tuple[int, ...] = (16, 32),
        kernel_sizes: list[int] | tuple[int, ...] = (4, 4),
        strides: list[int] | tuple[int, ...] = (2, 1),
    ) -> None:
        require(in_channels >= 1, "in_channels", in_channels, "must be at least 1")
        require(len(channels) >= 1, "channels", channels, "must be at least one number")
        settings = {"channels": channels, "kernel_sizes": kernel_sizes, "strides": strides}
        for name, values in settings.items():
            valid = f"must be {len(channels)} numbers, as channels, each at least 1"
            require(len(values) == len(channels) and min(values) >= 1, name, values, valid)
        layers: list[nn.Module] = []
        inputs = [in_channels, *channels]
        for before, after, size, stride in zip(inputs, channels, kernel_sizes, strides, strict=False):
            layers += [nn.Conv2d(before, after, size, stride, padding=(size - 1) // 2), nn.ReLU()]
        super().__init__(*layers)


class ResNet18Features(ResNet):
    """The 512 features of a ResNet-18 for 32 × 32 images: 3 × 3 stem of stride 1, no max-pooling, no head.

    Args:
        weights: file of a state dict to start from, whose names are those of torchvision's ResNet-18 (its
            head ``fc`` is left out), or a checkpoint of this package whose model has such a backbone.
        frozen: whether the parameters and the statistics of batch normalisation stay as they are.

    Raises:
        SettingError: if the file cannot be read, or does not fit.
    """

    def __init__(self, weights: str | None = None, frozen: bool = False) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2])
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        self.maxpool = nn.Identity()
        self.fc = nn.Identity()
        self.frozen = frozen
        if weights is not None:
            self._load(weights)
        if frozen:
            self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ResNet18Features:
        """Set the mode of all parts; a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def _load(self, path: str) -> None:
        theirs, ours = _read_weights(path), self.state_dict()
        for name in sorted(ours.keys() | theirs.keys()):
            shapes = [tuple(d[name].shape) if name in d else None for d in (theirs, ours)]
            problem = f"{name} has shape {shapes[0]}, this backbone needs {shapes[1]}"
            require(shapes[0] == shapes[1], "weights", path, problem)
        self.load_state_dict(theirs)


def _read_weights(path: str) -> dict[str, Any]:
    """The tensors of a state dict, or of a checkpoint's backbone, without a head's.

    Raises:
        SettingError: if there is no such file, or it holds something else.
    """
    valid = "must be a file of a state dict, or a checkpoint with a backbone, and whole"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SettingError("weights", path, f"cannot be read ({error.strerror})") from error
    except UNREADABLE as error:
        raise SettingError("weights", path, valid) from error
    if isinstance(content, dict) and "state_dict" in content:
        inside = content["state_dict"].items()
        content = {k.removeprefix("backbone."): v for k, v in inside if k.startswith("backbone.")}
    holds_tensors = isinstance(content, dict) and all(isinstance(v, torch.Tensor) for v in content.values())
    require(holds_tensors and len(content) > 0, "weights", path, valid)
    return {name: value for name, value in content.items() if not name.startswith("fc.")}


def count_features(backbone: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Number of features that a backbone gives of an image.

    Raises:
        SettingError: if it does not accept such images.
    """
    name, shape = type(backbone).__name__, tuple(image_shape)
    try:
        with evaluating(backbone), torch.no_grad():
            features = backbone(torch.zeros(1, *shape))
    except Exception as error:  # whatever it raises, it does not accept them
        reason = str(error).partition("\n")[0]
        raise SettingError(
            "model.backbone", name, f"must accept images of shape {shape} ({reason})"
        ) from error
    fits = isinstance(features, Tensor) and features.ndim >= 2 and len(features) == 1
    require(fits, "model.backbone", name, "must give one tensor of shape (B, …) for B images")
    count = features.flatten(1).shape[1]
    require(count >= 1, "model.backbone", name, f"leaves no features of images of shape {shape}")
    return count


def count_nodes(
    image_shape: tuple[int, int, int], backbone: nn.Module | None = None, nodes: int | None = None
) -> int:
    """Number of nodes N of an attractor model: ``nodes``, or else one per feature, or per pixel.

    Args:
        image_shape: shape (C, H, W) of the images.
        backbone: what stands before the model, if anything.
        nodes: how many nodes a linear map leads to, if there is one.

    Raises:
        SettingError: if ``nodes`` is below 1, N nodes that are all coupled do not fit into memory, the images
            have more than 4,096 pixels and nothing stands before the nodes, or the backbone does not accept
            such images.
    """
    require(nodes is None or nodes >= 1, "nodes", nodes, "must be null or at least 1")
    if backbone is None and nodes is None:
        _require_few_pixels(image_shape)
    count = math.prod(image_shape) if backbone is None else count_features(backbone, image_shape)
    count = count if nodes is None else nodes
    require_memory("nodes", count, count**2)
    return count


def _require_few_pixels(image_shape: tuple[int, int, int]) -> None:
    pixels = math.prod(image_shape)
    parameters, size = f"{pixels**2 / 1e6:,.0f} million parameters", f"{4 * pixels**2 / 2**30:,.1f} GiB"
    problem = f"each of {pixels:,} pixels would be a node, all of them coupled: {parameters}, {size}"
    remedy = "set a backbone and nodes, as model.backbone=ConvBackbone and model.nodes=100"
    valid = f"{problem}, and minutes before the first step; {remedy} (backbone=torch.nn.Flatten insists)"
    require(pixels <= _MOST_PIXELS, "image_shape", tuple(image_shape), valid)
