"""What attractor models prove of images: tubes through the map that really runs, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_attractors.certificates import (
    Flight,
    Traps,
    ball,
    basin_radii,
    class_radii,
    computes_as,
    evaluate_in_float32,
    find_traps,
    flight,
    require_faithful,
    require_sums,
)
from lightning_attractors.dynamics.planted import CoupledField
from lightning_attractors.errors import SettingError, require

if TYPE_CHECKING:
    from lightning_attractors.models.attractor import AttractorClassifier

# What beside ``forward`` a certificate takes for the class's own.
COMPUTES_BY = frozenset(
    ["final_state", "_final_state", "_fly", "_step", "initial_state", "logits_of", "num_steps", "step_map"]
)
# Up to as many steps no trap is looked for: a tube is as quickly followed to the end.
_FEW_STEPS = 60


def flight_of(model: AttractorClassifier) -> Flight:
    """The map of an evaluated model, in float64, of the float32 numbers that run.

    Raises:
        SettingError: if the model has noise in evaluation, or a field that does not say how its nodes bend.
    """
    silent = model.noise_is_silent()
    valid = "must be false: certificates are of the map without noise"
    require(silent, "eval_noise", True, valid)
    field = model.field()
    known = isinstance(field, CoupledField)
    valid = "must be a CoupledField that has pointwise(), for certificates of basins"
    require(known, "field", type(field).__name__, valid)
    assert isinstance(field, CoupledField)
    attractors = model.attractors.double()
    with torch.no_grad():
        # of the very float32 sums that run
        offsets = model.logits_of(torch.zeros_like(model.attractors[:1]))[0].double()
    readout = model.logit_scale * attractors / attractors.square().sum(dim=1).mean()
    return flight(
        field, model.dt, model.eval_steps, model.integrator, model.bound, attractors, readout, offsets
    )


def certified_radii(
    model: AttractorClassifier, kind: type[nn.Module], images: Tensor, labels: Tensor
) -> Tensor:
    """Radii (B,) within which the class of images, at the evaluation time, is proved to be their label."""
    found, states, stretch, error = _begun(model, kind, images)
    # beyond the traps a tube is long: it is worth finding them
    traps = model.traps() if found.steps > _FEW_STEPS and found.has_basins else None
    radii = class_radii(found, states, labels, traps, model.certified_norm, model.certified_seconds)
    return ((radii - error) / stretch).clamp(min=0)


def certified_basins(
    model: AttractorClassifier, kind: type[nn.Module], images: Tensor, labels: Tensor
) -> Tensor:
    """Radii (B,) within which all images are proved to end at the label's attractor, for ever."""
    found, states, stretch, error = _begun(model, kind, images)
    radii = basin_radii(found, states, labels, model.traps(), model.certified_norm, model.certified_seconds)
    return ((radii - error) / stretch).clamp(min=0)


@torch.no_grad()
def tubes(
    model: AttractorClassifier, kind: type[nn.Module], images: Tensor, radii: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Centres (B, N) and lengths (B,) of the tubes of balls around images, at every step of an evaluation.

    From where states may be clipped on, nothing is known of them: lengths are infinite.
    """
    found, states, stretch, error = _begun(model, kind, images)
    tube = ball(states, stretch * radii + error, model.certified_norm, found.second_order)
    lost = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for step in range(found.steps + 1):
        if step:
            tube = found.step(tube)
            lost = lost | ~found.within(tube)
        by_nodes = torch.linalg.vector_norm(tube.reach(), dim=1)
        length = torch.minimum(by_nodes, torch.stack(tube.lengths).sum(dim=0))
        yield tube.center, length.masked_fill(lost, torch.inf)


def traps_of(model: AttractorClassifier) -> Traps:
    """The traps of the planted attractors."""
    return find_traps(flight_of(model))


def _begun(
    model: AttractorClassifier, kind: type[nn.Module], images: Tensor
) -> tuple[Flight, Tensor, Tensor, Tensor]:
    """The map of a model that has been found to run it, and what :func:`_initial_states` gives of images."""
    dtype, short = model.attractors.dtype, torch.is_autocast_enabled(images.device.type)
    exact = dtype in (torch.float32, torch.float64) and not short
    valid = "must be float32, outside autocast: certificates are of its sums"
    require(exact, "precision", "autocast" if short else dtype, valid)
    found = flight_of(model)
    _require_faithful(model, kind, images)
    _require_step(model, found, images)
    return found, *_initial_states(model, images)


def _initial_states(model: AttractorClassifier, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Initial states (B, N) in float64, how far they move per unit of an image, and what float32 adds."""
    if computes_as(model.backbone, nn.Flatten) and model.embedding is None:
        nothing = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        return images.flatten(1).double(), nothing + 1, nothing
    norm = model.certified_norm
    require(norm == "l2", "certified_norm", norm, "must be l2 behind a backbone or an embedding")
    name = type(model.backbone).__name__
    layers = [*model.backbone] if isinstance(model.backbone, nn.Sequential) else [model.backbone]
    layers += [nn.Flatten()] if model.embedding is None else [nn.Flatten(), model.embedding]
    try:
        features = evaluate_in_float32(layers)(images.double())
    except SettingError as error:
        valid = (
            f"has no certified Lipschitz constant: radii are of states, by certificates.class_radii ({error})"
        )
        raise SettingError("backbone", name, valid) from error
    # an image at distance r has states, in float32, within offset + stretch · r of these
    offset, stretch = (features.spread + features.error).unbind(dim=1)
    return features.value, stretch, offset


def _require_faithful(model: AttractorClassifier, kind: type[nn.Module], images: Tensor) -> None:
    require_sums(images.device)
    everything = images.new_full((), torch.inf, dtype=torch.float64)
    require_faithful(
        model,
        kind,
        COMPUTES_BY,
        (model.backbone, *([] if model.embedding is None else [model.embedding])),
        lambda x: model.logits_of(model.final_state(x)),
        lambda x: (-everything, everything),
        images,
    )


@torch.no_grad()
def _require_step(model: AttractorClassifier, found: Flight, images: Tensor) -> None:
    """Refuse a model whose step is not that of its field, at some images and at its attractors."""
    dtype = model.attractors.dtype
    states = torch.cat([model.initial_state(images[:8].to(dtype)), model.attractors])
    exact = found.state_step(states.double())
    allowed = 4 * found.dt * found.rounding(states.double().abs()) + 1e-9 * (1 + exact.abs())
    off = (model.step_map(states).double() - exact).abs()
    fits = bool((off <= allowed).all())
    valid = "must step as its field's pointwise() and coupling say"
    require(fits, "module", type(model).__name__, valid)
