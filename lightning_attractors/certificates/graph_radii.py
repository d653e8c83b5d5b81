"""Certified radii from logits and a few tables alone: what a graph can compute that has left this package.

The rules of layers cannot travel with a graph, but what they say of all images at once can: how fast logits
change, and how far float32 logits may be off. What is off counts twice, at the image, whose float32 logits
are all that the graph has, and where it is moved to. So these radii are a little smaller than those of
:func:`~lightning_attractors.certificates.l2_radii` and
:func:`~lightning_attractors.certificates.lipschitz_radii`, and hold wherever float32 sums of products are
computed as :mod:`~lightning_attractors.certificates.float32_errors` takes for granted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_attractors.certificates.lipschitz import (
    evaluate_in_float32,
    lipschitz_bounds,
    pair_constants,
    smallest_radii,
)
from lightning_attractors.certificates.radii import FLOW_OPERATIONS, margin_constants, rounding_of_margins
from lightning_attractors.certificates.rounding import FARTHEST, accumulated
from lightning_attractors.dynamics.nmode import NMODELayer
from lightning_attractors.dynamics.nonexpansive import ControlledLinear
from lightning_attractors.norms import NormName

# Far above the rounding of float64 to float32, which may go up.
_SHORTER = 1 - 1e-6
# Far above the rounding of float64 in a distance.
_FARTHER = 1 + 1e-9
# Of a radius, and of an image's distance from the centre: both together are as far as is promised.
_LARGEST = FARTHEST / 2


class GraphRadius(nn.Module):
    """Radii within which images keep the class whose float32 logit is the largest.

    (l_y − l_j − lost_yj − growth ‖x − c‖₂) / rate_yj, the smallest over j.

    Args:
        norm: of the radii.
        rates: how fast l_y − l_j may fall per unit of distance, rounding included, shape (K, K), float64.
        lost: what rounding may take from it at the image and where it is moved to, shape (K, K), float64.
        growth: by how much more that is per unit of L2 distance of the image from ``centre``.
        centre: c, the same for all pixels.
        unit: what logits are multiplied by first.
        box: images outside have radius 0.
    """

    rates: Tensor
    lost: Tensor

    def __init__(
        self,
        norm: NormName,
        rates: Tensor,
        lost: Tensor,
        growth: float = 0.0,
        centre: float = 0.0,
        unit: float = 1.0,
        box: tuple[float, float] = (-math.inf, math.inf),
    ) -> None:
        super().__init__()
        self.norm, self.growth, self.centre, self.unit, self.box = norm, growth, centre, unit, box
        self.register_buffer("rates", rates)
        self.register_buffer("lost", lost)

    def excess(self, images: Tensor, logits: Tensor, others: Tensor) -> float:
        """By how much margins of two evaluations differ beyond what the radii allow for, if it is above 0.

        Args:
            images: shape (B, ...).
            logits: of one evaluation, shape (B, K).
            others: of the other one, shape (B, K).
        """
        labels = logits.argmax(dim=1)
        one, other = (
            self.unit * (x.double().gather(1, labels[:, None]) - x.double()) for x in (logits, others)
        )
        distance = (images.flatten(1).double() - self.centre).square().sum(dim=1, keepdim=True).sqrt()
        return float(((one - other).abs() - self.lost[labels] - self.growth * distance).max())

    def forward(self, images: Tensor, logits: Tensor) -> Tensor:
        """Radii (B,), float32, of images (B, ...) and their logits (B, K); 0 where there is none."""
        exact, pixels = self.unit * logits.double(), images.flatten(1).double()
        labels = exact.argmax(dim=1)
        distance = (pixels - self.centre).square().sum(dim=1, keepdim=True).sqrt() * _FARTHER
        margins = exact.amax(dim=1, keepdim=True) - exact
        sure = margins - self.lost[labels] - self.growth * distance
        radii = smallest_radii(sure, self.rates[labels], labels).clamp(max=_LARGEST)
        covered = (pixels.amin(dim=1) >= self.box[0]) & (pixels.amax(dim=1) <= self.box[1])
        covered = covered & (distance[:, 0] <= _LARGEST)
        return torch.where(covered, radii * _SHORTER, 0.0).float()


@torch.no_grad()
def l2_graph_radius(
    layers: nn.Sequential, head: ControlledLinear, temperature: float, image_shape: tuple[int, int, int]
) -> GraphRadius:
    """L2 radii of head(layers(image)) / temperature, for all images of a shape (C, H, W).

    Raises:
        SettingError: as :func:`~lightning_attractors.certificates.l2_radii`.
    """
    constants = pair_constants(head, math.prod(lipschitz_bounds(layers).values()))
    centre = 0.5  # no image is far from it
    grey = torch.full((1, *image_shape), centre, dtype=torch.float64, device=constants.device)
    off, growth = (math.sqrt(2) * evaluate_in_float32([*layers, head])(grey).error[0]).tolist()
    lost = torch.full_like(constants, 2 * off)
    return GraphRadius("l2", constants + growth, lost, 2 * growth, centre, temperature)


@torch.no_grad()
def linf_graph_radius(layer: NMODELayer, head: nn.Linear) -> GraphRadius:
    """L∞ radii of head(layer(image)) for images in [0, 1], by the margin.

    Raises:
        SettingError: as :func:`~lightning_attractors.certificates.lipschitz_radii`.
    """
    products = accumulated(layer.linear.in_features + FLOW_OPERATIONS)
    rates = (1 + products) * margin_constants(layer, head)
    classes = torch.arange(head.out_features, device=rates.device)
    largest = rates.new_ones(len(classes), 1)
    lost = 2 * rounding_of_margins(layer, head, largest, classes)
    return GraphRadius("linf", rates, lost, box=(0.0, 1.0))
