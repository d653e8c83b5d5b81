"""Whether a whole model computes what is certified of it: asked on the very images, before any is certified.

The rules know layers. What a model does around them, no rule sees: a ``forward`` of a subclass, hooks,
methods that were put in. Two questions settle it. May anything have the model compute something else than
its class says? And is what ``forward`` gives, on the images, on some that were moved and on noise, bit for
bit what the certified layers give one behind the other, and within the bounds that are certified of them?
With gradients and without, since attacks ask with and certificates without.

No comparison can settle what code does that keeps count, or looks at who calls it: a certificate is of code
that computes the same each time. Nor are torch's own tensors and kernels looked into.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_attractors.certificates.class_code import CALL, put_in
from lightning_attractors.certificates.guards import (
    require_precision,
    require_unchanged,
    require_untouched,
)
from lightning_attractors.certificates.intervals import propagate
from lightning_attractors.certificates.lipschitz import evaluate_in_float32
from lightning_attractors.certificates.rules import Interval
from lightning_attractors.errors import require

Bounds = Callable[[Tensor], Interval]
# Images that are moved, and how far.
_MOVED, _FAR = 8, 0.1
# Images that are looked at together.
_TOGETHER = 500
_SEED = 20_060


def require_faithful(
    model: nn.Module,
    kind: type[nn.Module],
    names: frozenset[str],
    parts: tuple[nn.Module, ...],
    composed: Callable[[Tensor], Tensor],
    bounds: Bounds,
    images: Tensor,
) -> None:
    """Refuse a model whose ``forward`` may be another function than the one that is certified.

    Args:
        model: the model.
        kind: the class that certifies it, as
            :func:`~lightning_attractors.certificates.remember` was told of it with these names.
        names: what the class computes by, beside ``forward`` and what every call goes through. A subclass may
            override the rest.
        parts: the layers that are certified.
        composed: takes images to what ``forward`` is to give of them, with the same operations.
        bounds: takes images in float64 to what is certified of these logits in float32, at each image alone.
        images: shape (B, ...), those that are to be certified.

    Raises:
        SettingError: naming the type, if it does not compute as its class, or its ``forward`` gives something
            else than its layers or than is certified of them.
    """
    _require_code_of(model, kind, names)
    for part in parts:
        for module in part.modules():
            require_untouched(module)
            require_precision(module)
    if len(images):
        name, device = type(model).__name__, images.device.type
        with torch.inference_mode(False), torch.autocast(device, enabled=False):
            _require_same(name, model, composed, bounds, images)


def _require_code_of(model: nn.Module, kind: type[nn.Module], names: frozenset[str]) -> None:
    """Refuse a model of which another code may run than that of a class.

    Raises:
        SettingError: naming the type and what is not the class's.
    """
    name, matters = type(model).__name__, names | CALL
    order = type(model).__mro__
    own = {found for base in order[: order.index(kind)] for found in vars(base)} & matters
    own |= set(put_in(model, matters))
    require(not own, "module", name, f"must compute what {kind.__name__} does: it has its own {sorted(own)}")
    hooked = model._forward_hooks or model._forward_pre_hooks
    require(not hooked, "module", name, "must have no forward hooks")
    compiled = model._compiled_call_impl is not None
    valid = "must not be compiled: certificates are of its operations one by one"
    require(not compiled, "module", name, valid)
    require_unchanged(kind)


def _require_same(
    name: str, model: nn.Module, composed: Callable[[Tensor], Tensor], bounds: Bounds, images: Tensor
) -> None:
    dtype = next((weight.dtype for weight in model.parameters()), torch.float32)
    given = images.detach().to(dtype)
    few = torch.cat([given[:_MOVED], _moved(given[:_MOVED])])
    with torch.no_grad():
        low, high = bounds(few.double())  # first, since it refuses layers that are not known
    cases = [("at the images", part, False) for part in given.split(_TOGETHER)]
    cases += [("alone", given[:1], gradients) for gradients in (False, True)]
    cases += [("at moved images", few, gradients) for gradients in (False, True)]
    for where, inputs, gradients in cases:
        logits, expected = (_logits(function, inputs, gradients) for function in (model, composed))
        same = logits.shape == expected.shape and bool(_equal(logits, expected).all())
        valid = "must have a forward that gives what its certified layers give: {} it gives other logits"
        require(same, "module", name, valid.format(where))
        if inputs is few:
            known = low.isfinite() & high.isfinite() & logits.isfinite()
            within = ~known | ((logits >= low) & (logits <= high))
            valid = "must have a forward within the bounds that are certified of it"
            require(bool(within.all()), "module", name, valid)


def _logits(function: Callable[[Tensor], Tensor], inputs: Tensor, gradients: bool) -> Tensor:
    with torch.set_grad_enabled(gradients):
        # a copy of what has the gradient: a first layer may work in place
        return function(inputs.clone().requires_grad_(gradients).clone()).detach()


def _equal(one: Tensor, other: Tensor) -> Tensor:
    return (one == other) | (one.isnan() & other.isnan())


def _moved(images: Tensor) -> Tensor:
    """Images a little away from some, farther away, and noise, all in [0, 1] where these are."""
    generator = torch.Generator().manual_seed(_SEED)
    signs = torch.rand(images.shape, generator=generator).sub(0.5).sign().to(images)
    noise = torch.rand(images.shape, generator=generator).to(images)
    low, high = images.amin().clamp(max=0), images.amax().clamp(min=1)
    near = [(images + far * signs).clamp(low, high) for far in (_FAR / 100, _FAR)]
    return torch.cat([*near, noise])


def interval_logits(layers: nn.Module, head: nn.Module) -> Bounds:
    """What interval propagation says of head(layers(image)), at each image alone."""
    return lambda images: propagate(head, *propagate(layers, images, images))


def l2_logits(layers: nn.Sequential, head: nn.Module, temperature: float) -> Bounds:
    """What the float32 rules say of head(layers(image)) / temperature, at each image alone."""

    def bounds(images: Tensor) -> Interval:
        found = evaluate_in_float32([*layers, head])(images)
        off = found.error[:, :1]
        return (found.value - off) / temperature, (found.value + off) / temperature

    return bounds
