"""Lipschitz constants of networks from above, in L2, and the radii that follow from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lightning_attractors.certificates.float32_errors import Evaluation
from lightning_attractors.certificates.guards import require_plain, require_sums
from lightning_attractors.certificates.rounding import FARTHEST
from lightning_attractors.certificates.rules import FLOAT32, LIPSCHITZ, isometry
from lightning_attractors.dynamics.nonexpansive import ControlledLinear
from lightning_attractors.errors import require

# Far above the rounding of float64 in what is computed here.
_SAFETY = 1e-9


def lipschitz_bounds(layers: nn.Sequential) -> dict[str, float]:
    """A bound of ‖f(x) − f(y)‖₂ / ‖x − y‖₂ for every layer that is more than a rearrangement, by name.

    Their product bounds that of the whole. Norms are those of
    :mod:`~lightning_attractors.linalg.operator_norms`, from above; a block that is proved non-expansive
    has 1.

    Raises:
        SettingError: naming the type, if a layer has no bound here, is of a subclass, or has hooks.
    """
    bounds = {}
    require_plain(layers, nn.Sequential)
    for name, layer in layers._modules.items():  # named_children skips a layer that comes again
        assert layer is not None
        rule = LIPSCHITZ.of_type(layer)
        if rule is not isometry:
            bounds[name] = rule(layer) * (1 + _SAFETY)
    return bounds


def evaluate_in_float32(layers: Iterable[nn.Module]) -> Callable[[Tensor], Evaluation]:
    """What float32 makes of images, layer by layer.

    Args:
        layers: one behind the other, of types that have a float32 rule:
            :func:`~lightning_attractors.certificates.register_rule`.

    Returns:
        Takes images, shape (B, ...), float64; gives the activations behind the last layer.

    Raises:
        SettingError: naming the type, if a layer has no such rule, is of a subclass, or has hooks.
    """
    rules = [FLOAT32.of_type(layer)(layer) for layer in layers]

    def evaluate(images: Tensor) -> Evaluation:
        x = Evaluation.of_images(images)
        for rule in rules:
            x = rule(x)
        return x

    return evaluate


def pair_constants(head: ControlledLinear, lipschitz: float = 1.0) -> Tensor:
    """How fast logit_i − logit_j can change per unit of L2 distance, shape (K, K), float64.

    ‖W_i − W_j‖₂ times the constant of what comes before the head, whose matrix is W.
    """
    weight = head.operator.weight.detach().double() * head.scale
    return torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist") * lipschitz


def margin_radii(logits: Tensor, labels: Tensor, lipschitz: float) -> Tensor:
    """M / (√2 Lip), with M the margin by which the label's logit leads and Lip bounding that of the logits.

    Args:
        logits: shape (B, K).
        labels: shape (B,).
        lipschitz: above 0, of the map from images to logits, both in L2.

    Returns:
        Shape (B,), float64; 0 where the label does not win.

    Example:
        >>> margin_radii(torch.tensor([[3.0, 1.0]]), torch.tensor([0]), lipschitz=2.0)
        tensor([0.7071], dtype=torch.float64)
    """
    require(lipschitz > 0, "lipschitz", lipschitz, "must be above 0")
    classes = logits.shape[1]
    constants = torch.full((classes, classes), math.sqrt(2) * lipschitz, dtype=torch.float64)
    return pair_radii(logits, labels, constants.to(logits.device))


def pair_radii(logits: Tensor, labels: Tensor, constants: Tensor) -> Tensor:
    """The smallest over j of (logit_y − logit_j) / L_yj: sharper than :func:`margin_radii`, as L_yj ≤ √2 Lip.

    Args:
        logits: shape (B, K).
        labels: shape (B,).
        constants: L of :func:`pair_constants`, shape (K, K).

    Returns:
        Shape (B,), float64; 0 where the label does not win, infinite where no logit can catch up.
    """
    return smallest_radii(_margins(logits, labels), constants[labels], labels)


@torch.no_grad()
def l2_radii(
    layers: nn.Sequential, head: ControlledLinear, images: Tensor, labels: Tensor, batch_size: int = 200
) -> Tensor:
    """L2 radii within which head(layers(image)), as float32 runs it, is proved to keep its label.

    They are those of :func:`pair_radii`, in float64, less what float32 rounding can take from the margins:
    see :mod:`~lightning_attractors.certificates.float32_errors` for what that covers. Dividing the logits by
    a temperature changes nothing. A distance is that between float32 images, in exact arithmetic.

    Args:
        layers: what comes before the head, of layers that :func:`lipschitz_bounds` knows.
        head: the last layer, to K logits.
        images: shape (B, C, H, W), floating point and finite.
        labels: the classes, shape (B,).
        batch_size: how many images are looked at together.

    Returns:
        Shape (B,), float64, at most 1e6; 0 where the label does not win, or float32 is too coarse to tell.

    Raises:
        SettingError: if the images are not finite or not of floating point, or as :func:`lipschitz_bounds`.
    """
    require(images.is_floating_point(), "images", images.dtype, "must be of floating point")
    require_sums(images.device)
    require(bool(images.isfinite().all()), "images", "not finite", "must be finite")
    evaluate = evaluate_in_float32([*layers, head])
    constants = pair_constants(head, math.prod(lipschitz_bounds(layers).values()))

    def radii(part: Tensor, classes: Tensor) -> Tensor:
        logits = evaluate(part.double())
        # no difference of two logits is off by more than √2 times their error
        lost, per_unit = math.sqrt(2) * logits.error.T[:, :, None]
        sure = _margins(logits.value, classes) - lost
        return smallest_radii(sure, constants[classes] + per_unit, classes).clamp(max=FARTHEST)

    with torch.autocast(images.device.type, enabled=False):
        parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        return torch.cat([radii(*part) for part in parts])


def _margins(logits: Tensor, labels: Tensor) -> Tensor:
    exact = logits.double()
    return exact.gather(1, labels[:, None]) - exact


def smallest_radii(margins: Tensor, rates: Tensor, labels: Tensor) -> Tensor:
    """The smallest margin over rate of a class other than the label, shape (B,), of both (B, K)."""
    radii = (margins / rates).scatter(1, labels[:, None], math.inf).amin(dim=1)
    return radii.nan_to_num(nan=0.0, posinf=math.inf).clamp(min=0) * (1 - _SAFETY)
