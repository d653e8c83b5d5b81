"""Traps of a module's attractors as scalars, as entries of ``stability.json`` and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_attractors.callbacks.equilibria import finite_or_none
from lightning_attractors.certificates import MOST_NODES_OF_BLOCKS
from lightning_attractors.contracts import FoundTraps, equilibria_of, traps_of
from lightning_attractors.errors import SettingError


@dataclass(frozen=True)
class TrapReport:
    """What was found of the traps.

    Attributes:
        entries: for every attractor radius, steps, rate and precision of its trap, under the names of
            ``stability.json``; empty if they could not be looked for.
        reason: why they could not.
    """

    entries: list[dict[str, Any]]
    reason: str = ""

    @property
    def radii(self) -> list[float]:
        return [entry["trap_radius"] for entry in self.entries]

    def scalars(self) -> dict[str, float]:
        """The smallest radius, under the name of its curve."""
        return {"stability/trap_radius": min(self.radii)} if self.entries else {}

    def enter(self, report: dict[str, Any]) -> None:
        """Put every trap to its attractor in the content of ``stability.json``, or the reason there."""
        if not self.entries:
            report["traps"] = self.reason
            return
        for attractor, entry in zip(report["attractors"], self.entries, strict=True):
            attractor.update(entry)

    def __str__(self) -> str:
        if not self.entries:
            return self.reason
        proved = [radius for radius in self.radii if radius > 0]
        count = f"{len(proved)} of {len(self.entries)}"
        return f"radius {min(proved):.2g} to {max(proved):.2g} in {count}" if proved else f"none: {count}"


def look_for_traps(module: nn.Module) -> TrapReport:
    """The traps of a module that has ``equilibria()`` and ``traps()``; it is asked up to 128 nodes only."""
    equilibria, traps = equilibria_of(module), traps_of(module)
    assert equilibria is not None
    assert traps is not None
    nodes = equilibria().shape[1]
    if nodes > MOST_NODES_OF_BLOCKS:
        return TrapReport([], f"not looked for in {nodes} nodes: at most {MOST_NODES_OF_BLOCKS}")
    try:
        return TrapReport(_entries(traps()))
    except SettingError as error:
        return TrapReport([], str(error))


def _entries(found: FoundTraps) -> list[dict[str, Any]]:
    columns = (found.radius, found.steps, found.rate, found.precision)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {
            "trap_radius": radius,
            "trap_steps": steps,
            "trap_rate": finite_or_none(rate),
            "trap_precision": finite_or_none(precision),
        }
        for radius, steps, rate, precision in rows
    ]
