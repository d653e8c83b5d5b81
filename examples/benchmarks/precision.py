"""The training step of every shipped config in ``auto``, float32 and bf16-mixed."""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from benchmarks.timing import ratio, report
from benchmarks.trainers import quiet_trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.table import Table

from lightning_attractors import callbacks, data, models  # noqa: F401  (short names in configs)
from lightning_attractors.cli import config_parser
from lightning_attractors.data import InMemoryDataModule, Labelled
from lightning_attractors.training import TwoPhaseTrainer, faster_precision, suit_threads

CONFIGS = Path(__file__).parents[2] / "configs"
PRECISIONS = ("auto", "32-true", "bf16-mixed")
# Steps of a fit, of which the first warms up; a fit whose steps are slow ends after so many seconds, and a
# config that has taken so many has no further rounds.
STEPS, SECONDS, ENOUGH = 6, 10.0, 60.0


class RandomImages(InMemoryDataModule):
    """Random images of the shape and in the batches of another data module."""

    def __init__(self, like: InMemoryDataModule, batch_size: int) -> None:
        self.image_shape, self.num_classes = like.image_shape, like.num_classes
        self.class_names = like.class_names
        super().__init__(batch_size=batch_size)

    def load_splits(self) -> tuple[Labelled, Labelled, Labelled]:
        """Enough images for the steps of a fit."""
        count = self.batch_size * STEPS
        images = torch.randint(0, 256, (count, *self.image_shape), dtype=torch.uint8)
        split = Labelled(images, torch.arange(count) % self.num_classes)
        return split, split, split


class StepTimes(Callback):
    """Seconds of every training step, optimizer included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)
        trainer.should_stop = sum(self.seconds) > SECONDS

    def typical(self) -> float:
        """The median without the first step, unless there is no other."""
        return statistics.median(self.seconds[1:] or self.seconds)


class _Setup(LightningCLI):
    """Builds what a config describes, and trains nothing."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return config_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in ("num_classes", "image_shape"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")


def build(config: Path) -> _Setup:
    """Model, data module and trainer of a config, on the CPU and without anything that writes."""
    off = ["--trainer.logger=false", "--trainer.callbacks=null", "--trainer.enable_progress_bar=false"]
    off += ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]
    return _Setup(
        trainer_class=TwoPhaseTrainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        run=False,
        seed_everything_default=0,
        save_config_callback=None,
        auto_configure_optimizers=False,
        args=["--config", str(config), *off],
    )


def seconds_of_a_step(config: Path, precision: str, filters: bool) -> tuple[float, str]:
    """A training step's time, and the precision that it ran in."""
    setup = build(config)
    threads = torch.get_num_threads()
    suit_threads(setup.model)  # as the command line does
    chosen = faster_precision(setup.model, "cpu") if precision == "auto" else precision
    size = setup.trainer.filter_batch_size if filters else None
    times = StepTimes()
    trainer = quiet_trainer(
        filter_epochs=int(filters),
        max_epochs=0 if filters else 1,
        precision=chosen,
        accelerator="cpu",
        callbacks=[times],
        limit_val_batches=0,
    )
    images = RandomImages(setup.datamodule, size or setup.datamodule.batch_size)
    trainer.fit(setup.model, datamodule=images)
    torch.set_num_threads(threads)
    return times.typical(), chosen


def row(config: Path, filters: bool, count: int) -> list[str]:
    """What ``auto`` is, the number of rounds, the times and their ratios."""
    seconds: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    ran_in: dict[str, str] = {}
    started, rounds = time.perf_counter(), 0
    while rounds < count and time.perf_counter() - started < ENOUGH:
        rounds += 1
        # Every second round backwards: the first fit of a config finds memory that is not there yet.
        for name in PRECISIONS[:: 1 if rounds % 2 else -1]:
            taken, ran_in[name] = seconds_of_a_step(config, name, filters)
            seconds[name].append(taken)
    return [
        ran_in["auto"],
        str(rounds),
        *(f"{1e3 * statistics.median(seconds[name]):.3g} ms" for name in PRECISIONS),
        *(f"{ratio(seconds['auto'], seconds[name]):.2f}" for name in PRECISIONS[1:]),
    ]


def precision(count: int, only: str = "") -> None:
    """Every config's training step in three precisions; filter phases have a row of their own."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    title = "Training steps of the shipped configs on random images, medians"
    columns = ("config", "auto is", "rounds", *PRECISIONS, "auto / 32-true", "auto / bf16-mixed")
    table = Table(*columns, title=title)
    for config in sorted(CONFIGS.glob("*.yaml")):
        if only in config.stem:
            for filters in [True, False] if build(config).trainer.filter_epochs else [False]:
                table.add_row(
                    f"{config.stem}, filters" if filters else config.stem, *row(config, filters, count)
                )
    report(table)
