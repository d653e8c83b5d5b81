"""What a sweep is to do, and what two sweeps must agree in to share a study."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal, get_args

from lightning_attractors.errors import require
from lightning_attractors.sweeps.space import Point, Space, grid

SamplerName = Literal["tpe", "random", "grid"]
DirectionName = Literal["maximize", "minimize"]

_OTHER = "; --study names another one"


def usual_direction(metric: str) -> DirectionName:
    """Losses are to be small, and everything else large."""
    return "minimize" if "loss" in metric else "maximize"


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes:
        config: the config that trials have in common, a file or the name of a shipped one.
        content: what is in that config, in short.
        space: what is varied.
        sampler: how points are chosen: ``tpe``, ``random`` or ``grid``.
        metric: what trials are compared by.
        direction: whether it is to be large or small.
        prune: the metric by whose course hopeless trials are ended, or None.
        seed: of the sampler.
    """

    config: str
    content: str
    space: Space
    sampler: SamplerName = "tpe"
    metric: str = "val/accuracy"
    direction: DirectionName = "maximize"
    prune: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what the types do not say.

        Raises:
            SettingError: naming the setting.
        """
        samplers = get_args(SamplerName)
        require(self.sampler in samplers, "sampler", self.sampler, f"must be one of {', '.join(samplers)}")
        require(self.seed >= 0, "seed", self.seed, "must be at least 0")

    def size(self) -> int | None:
        """The number of points of the grid; None for samplers that choose as they go."""
        if self.sampler != "grid":
            return None
        return math.prod(len(varied.points(key)) for key, varied in self.space.items())

    def points(self, count: int) -> list[Point] | None:
        """The first points of the grid; None for samplers that choose as they go."""
        return list(islice(grid(self.space), count)) if self.sampler == "grid" else None

    def in_words(self) -> str:
        """The plan as JSON, for the storage."""
        space = {key: asdict(varied) for key, varied in self.space.items()}
        return json.dumps({**asdict(self), "config": self.config, "space": space}, ensure_ascii=False)

    def require_same(self, words: str | None, study: str) -> None:
        """Refuse a study that was begun with another plan.

        Args:
            words: of the plan that the study has, or None if it has none.
            study: the study's name.

        Raises:
            SettingError: naming what differs.
        """
        require(words is not None, "study", study, "is none of a sweep: name another one")
        before, now = json.loads(str(words)), json.loads(self.in_words())
        for name in before.keys() - {"config"}:  # which may lie elsewhere on another machine
            old, new = _first_difference(before[name], now.get(name))
            if name == "content":
                require(
                    old == new, "config", self.config, f"differs from that of the study {study!r}{_OTHER}"
                )
            require(old == new, name, new, f"must be {old!r}, as in the study {study!r}{_OTHER}")


def _first_difference(before: Any, now: Any) -> tuple[Any, Any]:
    """Both values, or of mappings the parts that differ, by their names."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return before, now
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return {n: before[n] for n in names if n in before}, {n: now[n] for n in names if n in now}
