"""The strengths at which accuracies are usually compared, for the figures that need no fit."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_attractors.norms import NormName

_L2 = {"36/255": 36 / 255, "0.5": 0.5}
_GREY = {"0.1": 0.1, "0.3": 0.3}
# A curve is fitted through four radii at least: the usual strengths, and others between and beyond.
_SWEPT: dict[NormName, tuple[float, ...]] = {
    "linf": (2 / 255, 4 / 255, 8 / 255, 16 / 255, 0.1, 0.2, 0.3),
    "l2": (36 / 255, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
}
_COLOUR = {f"{k}/255": k / 255 for k in (2, 4, 8)}


def usual_strengths(norm: NormName, channels: int, reach: float) -> dict[str, float]:
    """The usual strengths up to a reach, by how they are written; the reach itself where there is none.

    In L2 36/255 and 0.5; in L∞ 0.1 and 0.3 of grey images, as of MNIST, and 2, 4 and 8/255 of others, as of
    CIFAR-10.

    Args:
        norm: that of the strengths.
        channels: of the images.
        reach: the largest strength that was tried.

    Example:
        >>> list(usual_strengths("linf", channels=3, reach=0.02))
        ['2/255', '4/255']
    """
    usual = _usual(norm, channels)
    within = {name: strength for name, strength in usual.items() if strength <= reach + 1e-9}
    return within or {f"{reach:.4g}": reach}


def usual_among(norm: NormName | None, channels: int, tried: Sequence[float]) -> dict[str, float]:
    """Those of some strengths that are usual; without any, the smallest, the middle and the largest.

    Args:
        norm: that of the strengths; None if they are none of a norm, of which none is usual.
        channels: of the images.
        tried: at least one.

    Example:
        >>> usual_among("linf", channels=1, tried=[0.2, 0.1, 0.4])
        {'0.1': 0.1}
    """
    ordered = sorted(set(tried))
    usual = {} if norm is None else _usual(norm, channels)
    found = {name: one for name, usually in usual.items() for one in ordered if abs(one - usually) < 1e-9}
    some = sorted({ordered[0], ordered[len(ordered) // 2], ordered[-1]})
    return found or {f"{one:.4g}": one for one in some}


def default_strengths(norm: NormName | None) -> tuple[float, ...]:
    """The strengths of an attack that was given none, the usual ones among them; none without a norm.

    Example:
        >>> [round(strength, 2) for strength in default_strengths("l2")]
        [0.14, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0]
    """
    return () if norm is None else _SWEPT[norm]


def _usual(norm: NormName, channels: int) -> dict[str, float]:
    return _L2 if norm == "l2" else _GREY if channels == 1 else _COLOUR
