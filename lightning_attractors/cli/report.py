"""What a run says of itself on TensorBoard: what it was, what came of it, and with which settings."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback

from lightning_attractors.cli.board import BoardLogger, flat_settings
from lightning_attractors.cli.usage import program
from lightning_attractors.robustness import versions

_WORDS = {
    "attractor": """a state that the states around it run into and stay in. Each class has one. It is a code
        that we chose for the class: no picture of it, and not learned. What is learned is the flow that leads
        every image to the code of its class.""",
    "certified stable": """the eigenvalues at an attractor lie on the stable side with their error bounds
        added, for the flow and for the step map that really runs: see `stability.json`.""",
    "basin": "the states that end at an attractor. Of a certified basin that is proved.",
    "certified radius": """how far an image may be moved, in whatever direction, without changing its class:
        proved, so no attack finds anything nearer.""",
    "adversarial radius": """how far an attack moved an image until its class changed. Another attack may need
        less.""",
    "R": """where accuracy against the strength of an attack falls most steeply: the inflection point of a
        generalised logistic function fitted to it.""",
}


class BoardReport(Callback):
    """Writes the text page and the settings of a run: as it begins what is known then, and the results after.

    Args:
        config: the settings of the subcommand.
    """

    def __init__(self, config: Namespace) -> None:
        given = config.as_dict()
        self.settings = flat_settings({name: given[name] for name in ("model", "data") if given.get(name)})
        rate = self.settings.get("model.optimizer.lr")
        own = {
            "seed": config.seed_everything,
            "epochs": given["trainer"]["max_epochs"],
            "learning rate": rate,
        }
        self.settings |= {name: value for name, value in own.items() if value is not None}
        self._begun = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._begun or not trainer.is_global_zero:
            return
        self._begun = True
        rows = self._about(trainer, pl_module)
        for board in _boards(trainer):
            board.write_page("1_what_was_run", _listed(rows))
            board.write_page("3_words", _listed(list(_WORDS.items())))
            board.write_settings(self.settings)

    def finish(self, trainer: L.Trainer, rows: Sequence[tuple[Any, Any]] = ()) -> None:
        """Write the results: the table that the run ends with, and every number there is one of."""
        for board in _boards(trainer):
            numbers = _table(sorted(board.results.items()))
            board.write_page("2_results", f"{_table(rows)}\n\n{numbers}" if rows else numbers)
            board.write_settings(self.settings)

    def _about(self, trainer: L.Trainer, module: L.LightningModule) -> list[tuple[str, Any]]:
        parameters = sum(parameter.numel() for parameter in module.parameters())
        found, device = versions(), trainer.strategy.root_device.type
        return [
            ("command", f"`{program()} {shlex.join(sys.argv[1:])}`"),
            ("model", f"{self.settings.get('model', type(module).__name__)}, {parameters:,} parameters"),
            ("data", self.settings.get("data", "")),
            ("seed", self.settings.get("seed", "")),
            ("precision", str(trainer.precision)),
            ("processor", f"{device}, {platform.machine()}, {torch.get_num_threads()} threads"),
            ("versions", ", ".join(f"{name} {version}" for name, version in found.items())),
        ]


def _boards(trainer: L.Trainer) -> list[BoardLogger]:
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return []
    return [logger for logger in trainer.loggers if isinstance(logger, BoardLogger)]


def _listed(entries: Sequence[tuple[str, Any]]) -> str:
    return "\n\n".join(f"**{name}**: {' '.join(str(value).split())}" for name, value in entries)


def _table(rows: Sequence[tuple[Any, Any]]) -> str:
    """Names and values as a table in Markdown."""
    return "\n".join(
        ["| what | value |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows)]
    )


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
