"""What TensorBoard shows of a run as lines, as words, and among the settings that runs are compared by."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams

from lightning_attractors.writing import write_atomically

# What there is one number of, at the end: it goes to the tables.
_SINGLE = ("test/", "robustness/", "stability/trap", "hp_metric")
# TensorBoard reads a run's files in the order of their names and never goes back to one: this is the first.
_SETTINGS = "events.out.tfevents.0.settings"
# Charts by category, each with the curves in it, in the order in which they are read.
_CHARTS = {
    "1 learning": {
        "loss": ["train/loss", "val/loss"],
        "accuracy on the validation images": ["val/accuracy", "val/distance_accuracy"],
        "share of images that end at their attractor": ["val/attractor_accuracy", "val/perfect"],
        "overlap of final states with the attractor of the class": ["val/overlap"],
    },
    "2 stability": {
        "largest real part of the flow's eigenvalues: stable below 0": ["stability/abscissa"],
        "largest modulus of the step map's eigenvalues: stable below 1": ["stability/spectral_radius"],
        "share of the attractors that are certified stable": ["stability/certified"],
    },
    "3 filters": {
        "shares of the filters": ["filters/f_score", "filters/negative"],
        "largest change": ["filters/largest_change"],
        "activity": ["filters/activity_converged", "filters/activity_unconverged"],
    },
}


class BoardLogger(TensorBoardLogger):
    """Lightning's logger for TensorBoard, for a board that reads like a report.

    Curves are grouped under Custom Scalars, and ``epoch`` is none of them. What there is one number of, as of
    a test, is no curve either: it is in :attr:`results`, for the tables of the text page and among the
    settings of HParams, where runs are compared.
    """

    @cached_property
    def results(self) -> dict[str, float]:
        """The single numbers so far, by name."""
        return {}

    @cached_property
    def _curves(self) -> set[str]:
        return set()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log what is a curve, and keep what is a single number."""
        single = {name: float(value) for name, value in metrics.items() if name.startswith(_SINGLE)}
        self.results.update(single)
        curves = {name: value for name, value in metrics.items() if name not in {*single, "epoch"}}
        super().log_metrics(curves, step)
        if curves.keys() - self._curves:
            self._curves.update(curves)
            self.experiment.add_custom_scalars(layout(self._curves))

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Keep the settings for ``hparams.yaml``; on the board are those of :meth:`write_settings`."""
        super().log_hyperparams(params, None, step)

    @rank_zero_only
    def write_page(self, name: str, text: str) -> None:
        """Put words, in Markdown, on the text page."""
        self.experiment.add_text(f"report/{name}", text)
        self.experiment.flush()

    @rank_zero_only
    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings and the results so far to where HParams compares runs, over what was there."""
        # in brackets, by which they come first among the columns
        results = {f"(result) {name}": value for name, value in sorted(self.results.items())}
        # without an experiment's: TensorBoard would show the columns of the first run's alone
        _, *summaries = hparams({**results, **settings}, {})
        events = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        events += [Event(wall_time=time.time(), summary=summary) for summary in summaries]
        content = io.BytesIO()
        writer = RecordWriter(content)
        for event in events:
            writer.write(event.SerializeToString())
        write_atomically(Path(self.log_dir) / _SETTINGS, content.getvalue())


def layout(curves: set[str]) -> dict[str, Any]:
    """The charts of curves by category, as Custom Scalars wants them; curves of no chart come last."""
    charted = {name for charts in _CHARTS.values() for names in charts.values() for name in names}
    charts = {**_CHARTS, "4 others": {name: [name] for name in sorted(curves - charted)}}
    found = {
        category: {
            title: ["Multiline", [f"^{re.escape(name)}$" for name in names if name in curves]]
            for title, names in of.items()
            if curves & set(names)
        }
        for category, of in charts.items()
    }
    return {category: of for category, of in found.items() if of}


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings of a config by dotted names: classes by their own name alone, without what was not set."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if key == "class_path":
            found[prefix] = str(value).rpartition(".")[2]
        elif isinstance(value, Mapping):
            found |= flat_settings(value, prefix if key == "init_args" else name)
        elif isinstance(value, str | int | float):
            found[name] = value
        elif value is not None:
            found[name] = str(value)
    return found
