"""The command line: ``python -m lightning_attractors fit|validate|test|predict``."""

from __future__ import annotations

import csv
import io
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.model_helpers import is_overridden

# Imported so that their class names alone resolve in configs and on the command line.
from lightning_attractors import callbacks, data, models  # noqa: F401
from lightning_attractors.callbacks import EpochLines, FiniteLoss
from lightning_attractors.callbacks.output import run_folder, write_atomically
from lightning_attractors.errors import SettingError
from lightning_attractors.summary import print_summary

_LOGGER = {
    "class_path": f"{TensorBoardLogger.__module__}.{TensorBoardLogger.__name__}",
    "init_args": {"save_dir": "runs", "name": "", "default_hp_metric": False},
}


class AttractorsCLI(LightningCLI):
    """LightningCLI with one folder per run, a test of the best checkpoint after ``fit``, and one table.

    The folder is ``<save_dir>/<name>/version_<k>`` of the TensorBoard logger and holds config, checkpoints,
    events, certificate, pictures and curves. ``--ckpt_path last`` (or ``best``) means the newest run under
    that name; ``fit --ckpt_path last`` goes on in that run's own folder.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "trainer.logger": _LOGGER,
                "checkpoint.monitor": "val/accuracy",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "checkpoint.save_on_train_epoch_end": True,
            }
        )
        for name in ("num_classes", "image_shape"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Resolve ``--ckpt_path``; the config alone says how the model is built, never the checkpoint."""
        if not self.config.get("subcommand"):
            return
        config = self.config[self.config.subcommand]
        root = _log_root(config.trainer)
        path = config.get("ckpt_path")
        if path in ("last", "best"):
            path = _newest_checkpoint(root, path)
            config.ckpt_path = str(path)
            if self.config.subcommand == "fit" and isinstance(
                config.trainer.logger.get("init_args"), dict | object
            ):
                config.trainer.logger.init_args.version = path.parent.parent.name
                self.save_config_kwargs.update(config_filename="config_resumed.yaml", overwrite=True)
        if path is not None and not zipfile.is_zipfile(path):
            raise SettingError("ckpt_path", str(path), "must be a checkpoint file that exists and is whole")
        _check_writable(root)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        config = self._get(self.config_init, "trainer")
        extra: list[Callback] = [FiniteLoss()]
        given = config.callbacks if isinstance(config.callbacks, list) else [config.callbacks]
        if config.enable_progress_bar is not False and not any(
            isinstance(item, ProgressBar) for item in given
        ):
            extra.append(RichProgressBar() if sys.stdout.isatty() else EpochLines())
        if config.enable_checkpointing is not False:
            # The best one first: it is the trainer's checkpoint callback. The last one is for resuming.
            extra.append(self._get(self.config_init, "checkpoint"))
            last = ModelCheckpoint(
                filename="last", save_on_train_epoch_end=True, enable_version_counter=False
            )
            extra.append(last)
        return self._instantiate_trainer({**config, **kwargs}, extra)

    def before_fit(self) -> None:
        self._started = time.monotonic()

    def after_fit(self) -> None:
        """Test the best checkpoint and print the table."""
        seconds = time.monotonic() - self._started
        if not is_overridden("test_step", self.model):
            return
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        self.trainer.test(self.model, self.datamodule, ckpt_path=best or None, verbose=False)
        folder = run_folder(self.trainer)
        if self.trainer.is_global_zero:
            print_summary(self.trainer, folder, seconds)

    def after_predict(self) -> None:
        """Write ``predictions.csv``: index, class and confidence of every image."""
        folder = run_folder(self.trainer)
        logits = torch.cat([batch.float().cpu() for batch in self.trainer.predict_loop.predictions])
        confidence, label = logits.softmax(dim=1).max(dim=1)
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(["index", "class", "confidence"])
        writer.writerows(zip(range(len(label)), label.tolist(), confidence.tolist(), strict=True))
        write_atomically(folder / "predictions.csv", table.getvalue())
        print(f"{len(label)} predictions are in {folder / 'predictions.csv'}")


def _log_root(trainer: Any) -> Path:
    """The folder under which the configured logger makes the run's folder."""
    logger = trainer.logger
    if not hasattr(logger, "init_args") or "save_dir" not in logger.init_args:
        return Path(trainer.default_root_dir or ".")
    return Path(logger.init_args.save_dir) / (logger.init_args.get("name") or "")


def _newest_checkpoint(root: Path, name: str) -> Path:
    found = sorted(root.glob(f"version_*/checkpoints/{name}.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SettingError(
            "ckpt_path", name, f"there is no {name}.ckpt of an earlier run in {root}/version_*"
        )
    return found[-1]


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingError(
            "trainer.logger save_dir", str(folder), f"must be writable ({error.strerror})"
        ) from error
