"""How far around an image all images provably end as it does: by tubes, for the map that runs in float32."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lightning_attractors.certificates.euler_flights import PreparedFlight, prepare
from lightning_attractors.certificates.flights import MOST_NODES_OF_BLOCKS, Flight
from lightning_attractors.certificates.traps import Traps
from lightning_attractors.certificates.tubes import ball
from lightning_attractors.errors import require
from lightning_attractors.memory import require_memory
from lightning_attractors.norms import NormName

# Where the search for a radius begins, and ends; radii fall short by at most this share of themselves.
_FIRST, _LARGEST, _SMALLEST, _TOLERANCE = 0.25, 1e3, 1e-4, 0.03
# Float64 numbers that are held at a time, for all images that are looked at together: 256 MB, or, of what is
# passed over again and again, what a processor's cache holds.
_NUMBERS, _CACHED_NUMBERS = 1 << 25, 1 << 21
_BYTES = 8  # of a float64 number
# Steps beyond the evaluation after which a tube that is in no trap is given up.
_BEYOND = 60
# Flights of few nodes with more steps than that are not prepared: they take products for all pairs of steps.
_MOST_PREPARED_STEPS = 60

# Tubes take several times as long as forms, and add little where those reach this share of first order.
_ENOUGH = 0.5

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
        flight: the map, of :func:`~lightning_attractors.certificates.flight`.
        states: what it begins with, shape (B, N).
        labels: shape (B,).
        traps: those of the attractors, if known: a tube within one need not be followed any more.
        norm: of the balls.
        seconds_per_image: how long to go on, on average over images; what is not finished by then keeps what
            has been proved of it, which is 0 if nothing has.

    Returns:
        Shape (B,), float64, at most 3 % below what the method proves; 0 where the label does not win. Short
        flights of Euler's are done with half of what first order alone would give.

    Raises:
        SettingError: if there are more than 128 nodes and the map is not Euler's or the norm not L2, or more
            than the memory holds.
    """
    search = _Search(flight, states, labels, seconds_per_image)
    quick = flight.integrator == "euler" and norm == "l2"
    if flight.nodes > MOST_NODES_OF_BLOCKS:
        tubes = f"tubes of {flight.integrator} in {norm}"
        valid = f"must be at most {MOST_NODES_OF_BLOCKS} for {tubes}, or euler in l2"
        require(quick, "nodes", flight.nodes, valid)
        # of one image: products to every step, twice over, what their norms take, and the forms
        matrices = 4 * flight.steps + 2 * len(flight.readout)
        require_memory("nodes", flight.nodes, matrices * flight.nodes**2, states.device, _BYTES)
    if quick and (flight.nodes > MOST_NODES_OF_BLOCKS or flight.steps <= _MOST_PREPARED_STEPS):
        search.by_forms()
    if flight.nodes <= MOST_NODES_OF_BLOCKS:
        search.rows = search.rows[(search.radii < _ENOUGH * search.most)[search.rows]]
        search.by_tubes(traps, norm, basin=False)
    return search.radii


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
        traps: of :func:`~lightning_attractors.certificates.find_traps`.
        norm: of the balls.
        seconds_per_image: as for :func:`class_radii`.

    Returns:
        Shape (B,), float64; 0 where no tube ends in the label's trap.
    """
    flight.require_basins()
    search = _Search(flight, states, labels, seconds_per_image)
    search.by_tubes(traps, norm, basin=True)
    return search.radii


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


class _Search:
    """What is proved of the radii of images, and what the time that is left may add.

    Attributes:
        radii: proved so far, shape (B,).
        most: beyond which none is looked for, shape (B,).
    """

    def __init__(self, flight: Flight, states: Tensor, labels: Tensor, seconds_per_image: float) -> None:
        self.flight, self.states, self.labels = flight, states.double(), labels
        self.end = time.monotonic() + seconds_per_image * len(labels)
        self.rows = _right(flight, self.states, labels).nonzero()[:, 0]
        self.radii = torch.zeros(len(labels), dtype=torch.float64, device=states.device)
        self.most = torch.full_like(self.radii, torch.inf)

    def by_forms(self) -> None:
        """By margins to second order, up to what first order alone would give: little lies beyond it."""
        nodes, steps, classes = self.flight.nodes, self.flight.steps, len(self.flight.readout)
        matrices = steps * steps // 2 + classes if nodes <= MOST_NODES_OF_BLOCKS else 2 * steps + classes
        size = _NUMBERS // (4 * nodes * nodes * matrices)
        if self.flight.second_order:
            size = min(size, self._held_at_once() // (2 * nodes**3))
        for part in self._batches(size):
            prepared = prepare(self.flight, self.states[part], self.labels[part])
            self.most[part] = prepared.first_order()

            def trial(radii: Tensor, rows: Tensor, prepared: PreparedFlight = prepared) -> Tensor:
                return prepared.holds(radii)[rows]

            self._bisect(part, trial)

    def by_tubes(self, traps: Traps | None, norm: NormName, basin: bool) -> None:
        """By tubes, one after the other where they do not fit a cache together."""
        nodes = self.flight.nodes
        matrices = (nodes if self.flight.second_order else 1) + min(self.flight.steps, 60)
        for part in self._batches(self._held_at_once() // (4 * nodes * nodes * matrices)):

            def trial(radii: Tensor, rows: Tensor, part: Tensor = part) -> Tensor:
                chosen = part[rows]
                found = follow(
                    self.flight, self.states[chosen], self.labels[chosen], radii[rows], traps, norm
                )
                return found[int(basin)]

            self._bisect(part, trial)

    def _held_at_once(self) -> int:
        return _CACHED_NUMBERS if self.states.device.type == "cpu" else _NUMBERS

    def _batches(self, size: int) -> Iterator[Tensor]:
        for part in self.rows.split(max(1, size)) if len(self.rows) else ():
            if time.monotonic() >= self.end:
                late = int((self.rows >= part[0]).sum())
                text = (
                    f"time ran out for {late} of {len(self.labels)} images: less is certified than could be"
                )
                warnings.warn(text, stacklevel=5)
                return
            yield part

    def _bisect(self, part: Tensor, holds: Trial) -> None:
        """The largest radii that hold, each of which has been tried itself."""
        low, high = self.radii[part], self.most[part]
        while True:
            middle = torch.where(low > 0, torch.minimum(2 * low, (low + high) / 2), high / 4)
            middle = middle.masked_fill(high.isinf() & (low == 0), _FIRST)
            going = (high > low * (1 + _TOLERANCE)) & (low < _LARGEST) & (middle > _SMALLEST)
            rows = going.nonzero()[:, 0]
            if not len(rows) or time.monotonic() >= self.end:
                self.radii[part] = low
                return
            held = torch.zeros_like(going)
            held[rows] = holds(middle, rows)
            low = torch.where(held, middle, low)
            high = torch.where(going & ~held, middle, high)


def _right(flight: Flight, states: Tensor, labels: Tensor) -> Tensor:
    """Whether the label wins at all, shape (B,): where it does not, there is nothing to prove."""
    for _ in range(flight.steps):
        states = flight.state_step(states)
    return (states @ flight.readout.T + flight.offsets).argmax(dim=1) == labels
