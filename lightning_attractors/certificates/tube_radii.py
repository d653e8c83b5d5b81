"""How far around an image all images provably end as it does: by tubes, for the map that runs in float32."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_attractors.certificates.euler_flights import prepare
from lightning_attractors.certificates.flights import MOST_NODES_OF_BLOCKS, Flight
from lightning_attractors.certificates.traps import Traps
from lightning_attractors.certificates.tubes import ball
from lightning_attractors.errors import require
from lightning_attractors.norms import NormName

# Where the search for a radius begins, and ends; radii fall short by at most this share of themselves.
_FIRST, _LARGEST, _SMALLEST, _TOLERANCE = 0.25, 1e3, 1e-4, 0.03
# Float64 numbers that are held at a time, for all images that are looked at together: 256 MB.
_NUMBERS = 1 << 25
# Steps beyond the evaluation after which a tube that is in no trap is given up.
_BEYOND = 60

Trial = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def class_radii(
    flight: Flight,
    states: Tensor,
    labels: Tensor,
    traps: Traps | None = None,
    norm: NormName = "l2",
    seconds_per_image: float = 60.0,
) -> Tensor:
    """Radii of the balls around states within which the class, at the evaluation time, is the label.

    Args:
        flight: the map, of :func:`~lightning_attractors.certificates.flights.flight`.
        states: what it begins with, shape (B, N).
        labels: shape (B,).
        traps: those of the attractors, if known: a tube within one need not be followed any more.
        norm: of the balls.
        seconds_per_image: how long to go on, on average over images; what is not finished by then keeps what
            has been proved of it, which is 0 if nothing has.

    Returns:
        Shape (B,), float64, at most 3 % below what the method proves; 0 where the label does not win.

    Raises:
        SettingError: if there are more than 128 nodes and the map is not Euler's or the norm not L2.
    """

    def radii(part: Tensor, classes: Tensor, end: float) -> Tensor:
        if flight.nodes > MOST_NODES_OF_BLOCKS:
            _require_euler(flight, norm)
            prepared = prepare(flight, part, classes)
            return _bisect(lambda tried, rows: prepared.holds(tried)[rows], part, end)
        return _bisect(_followed(flight, part, classes, traps, norm, basin=False), part, end)

    return _in_batches(radii, flight, states, labels, seconds_per_image)


@torch.no_grad()
def basin_radii(
    flight: Flight,
    states: Tensor,
    labels: Tensor,
    traps: Traps,
    norm: NormName = "l2",
    seconds_per_image: float = 60.0,
) -> Tensor:
    """Radii of the balls around states from which every state ends at the label's attractor, for ever.

    Args:
        flight: the map, of up to 128 nodes.
        states: what it begins with, shape (B, N).
        labels: shape (B,).
        traps: of :func:`~lightning_attractors.certificates.traps.find_traps`.
        norm: of the balls.
        seconds_per_image: as for :func:`class_radii`.

    Returns:
        Shape (B,), float64; 0 where no tube ends in the label's trap.
    """
    flight.require_basins()

    def radii(part: Tensor, classes: Tensor, end: float) -> Tensor:
        return _bisect(_followed(flight, part, classes, traps, norm, basin=True), part, end)

    return _in_batches(radii, flight, states, labels, seconds_per_image)


def follow(
    flight: Flight, states: Tensor, labels: Tensor, radii: Tensor, traps: Traps | None, norm: NormName
) -> tuple[Tensor, Tensor]:
    """Whether the class is the label at the evaluation time, and whether all ends in the label's trap.

    Args:
        flight: the map.
        states: centres of balls, shape (B, N).
        labels: shape (B,).
        radii: of the balls, shape (B,).
        traps: of the attractors, or None.
        norm: of the balls.

    Returns:
        Two masks of shape (B,).
    """
    tube = ball(states, radii, norm, flight.second_order)
    kept, trapped = torch.zeros_like(labels, dtype=torch.bool), torch.zeros_like(labels, dtype=torch.bool)
    rows = torch.arange(len(labels), device=labels.device)
    for step in range(1, flight.steps + (0 if traps is None else _BEYOND) + 1):
        tube = flight.step(tube)
        going = flight.within(tube)
        if step == flight.steps:
            kept[rows] |= going & (flight.margins(tube, labels[rows]) > 0).all(dim=1)
        if traps is not None:
            caught = going & traps.hold(tube, labels[rows])
            trapped[rows] = caught
            if step <= flight.steps:
                kept[rows] |= caught & traps.decided[labels[rows]]
            going &= ~caught
        if not bool(going.any()):
            break
        if not bool(going.all()):
            tube, rows = tube.select(going), rows[going]
    return kept, trapped


def _followed(
    flight: Flight, states: Tensor, labels: Tensor, traps: Traps | None, norm: NormName, basin: bool
) -> Trial:
    def trial(radii: Tensor, rows: Tensor) -> Tensor:
        return follow(flight, states[rows], labels[rows], radii[rows], traps, norm)[int(basin)]

    return trial


def _bisect(holds: Trial, states: Tensor, end: float) -> Tensor:
    """The largest radii (B,) that hold, each of which has been tried itself."""
    low = torch.zeros(len(states), dtype=states.dtype, device=states.device)
    high = torch.full_like(low, torch.inf)
    while True:
        middle = torch.where(low > 0, torch.where(high.isinf(), 2 * low, (low + high) / 2), high / 4)
        middle = torch.where(high.isinf() & (low == 0), _FIRST, middle)
        going = (high > low * (1 + _TOLERANCE)) & (low < _LARGEST) & (middle > _SMALLEST)
        rows = going.nonzero()[:, 0]
        if not len(rows) or time.monotonic() >= end:
            return low
        held = torch.zeros_like(going)
        held[rows] = holds(middle, rows)
        low = torch.where(held, middle, low)
        high = torch.where(going & ~held, middle, high)


def _in_batches(
    function: Callable[[Tensor, Tensor, float], Tensor],
    flight: Flight,
    states: Tensor,
    labels: Tensor,
    seconds_per_image: float,
) -> Tensor:
    nodes = flight.nodes
    order = nodes if flight.second_order else 1
    blocks = min(flight.steps, 60) if nodes <= MOST_NODES_OF_BLOCKS else 1
    size = max(1, _NUMBERS // (4 * nodes * nodes * (order + blocks)))
    radii = torch.zeros(len(labels), dtype=torch.float64, device=states.device)
    rows = _right(flight, states.double(), labels).nonzero()[:, 0]
    end = time.monotonic() + seconds_per_image * len(labels)
    for part in rows.split(size) if len(rows) else ():
        if time.monotonic() >= end:
            late = int((rows >= part[0]).sum())
            text = f"time ran out for {late} of {len(labels)} images, which count as certified to 0"
            warnings.warn(text, stacklevel=4)
            break
        radii[part] = function(states[part].double(), labels[part], end)
    return radii


def _right(flight: Flight, states: Tensor, labels: Tensor) -> Tensor:
    """Whether the label wins at all, shape (B,): where it does not, there is nothing to prove."""
    for _ in range(flight.steps):
        states = flight.state_step(states)
    return (states @ flight.readout.T + flight.offsets).argmax(dim=1) == labels


def _require_euler(flight: Flight, norm: NormName) -> None:
    valid = (
        f"must be at most {MOST_NODES_OF_BLOCKS} for tubes of {flight.integrator} in {norm}, or euler in l2"
    )
    require(flight.integrator == "euler" and norm == "l2", "nodes", flight.nodes, valid)
