"""The subcommands of Lightning: ``attractors fit|validate|test|predict``."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelSummary, ProgressBar, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden

# Imported so that their class names alone resolve in configs and on the command line.
from lightning_attractors import __version__, callbacks, data, models  # noqa: F401
from lightning_attractors.callbacks import (
    BestCheckpoint,
    EpochLines,
    EveryImageOnce,
    FiniteLoss,
    LastCheckpoint,
    Predictions,
    RobustnessCurve,
)
from lightning_attractors.cli.board import BoardLogger
from lightning_attractors.cli.checkpoint_checks import check_checkpoint, local_checkpoint
from lightning_attractors.cli.completion import PrintCompletion
from lightning_attractors.cli.config_files import config_parser
from lightning_attractors.cli.export import EXPORT, export_parser
from lightning_attractors.cli.locks import OneProcess, hold, is_first_process
from lightning_attractors.cli.metrics_file import MetricsFile
from lightning_attractors.cli.quiet import ParameterLine
from lightning_attractors.cli.refusals import Beginning
from lightning_attractors.cli.report import BoardReport
from lightning_attractors.cli.results import leave_results
from lightning_attractors.cli.resuming import SameOptimizer, other_than_trained, require_same_settings
from lightning_attractors.cli.runs import (
    RESUMED,
    as_list,
    check_writable,
    checkpoint_of_run,
    configured_loggers,
    evaluate_within,
    header,
    log_root,
    precision_of_run,
    read_config,
    run_of,
    run_to_go_on,
    threads_of_config,
)
from lightning_attractors.cli.settings import (
    EPOCHS,
    check_callbacks,
    check_linked,
    check_settings,
    limit_epochs,
    place_runs,
    usual_callbacks,
)
from lightning_attractors.cli.signals import EndsBySignal
from lightning_attractors.cli.summary import print_summary
from lightning_attractors.cli.sweep_parser import SWEEP, sweep_parser
from lightning_attractors.cli.told_by_data import LINKED, told
from lightning_attractors.cli.usage import program
from lightning_attractors.contracts import best_weights
from lightning_attractors.errors import SettingError, require
from lightning_attractors.training import (
    CheckpointFiles,
    SamePrecision,
    TwoPhaseTrainer,
    faster_precision,
    suit_threads,
    warn_if_slow,
)
from lightning_attractors.writing import remove_asides, run_folder

_LOGGER: dict[str, Any] = {
    "class_path": f"{BoardLogger.__module__}.{BoardLogger.__name__}",
    "init_args": {"save_dir": "runs", "name": "", "default_hp_metric": False},
}
_ABOUT = (
    "Train, certify and measure classifiers that are dynamical systems. `attractors configs` lists the "
    "configs that are shipped, `attractors fit --config NAME` runs one."
)


class AttractorsCLI(LightningCLI):
    """LightningCLI with one folder per run, a test of the best checkpoint after ``fit``, and one table.

    The folder is ``<save_dir>/<name>/version_<k>`` of the TensorBoard logger and holds config, checkpoints,
    events, certificate, pictures and curves. The name is that of the first config file if nothing else sets
    it. ``--ckpt_path last`` (or ``best``) means the run whose own config is given, or else the newest under
    that name; ``fit --ckpt_path last`` goes on in that run's own folder, with its settings. ``validate``,
    ``test`` and ``predict`` of a run have a folder of their name in the run's. ``--ckpt_path untrained``
    means the weights that training would begin with. With ``trainer.precision: auto`` the config that is
    saved names the precision that was chosen.
    """

    begun_with: str | None = None  # the precision of the run that is resumed
    untrained = False  # whether the user has asked for weights that nobody has trained
    differs = ""  # in what an evaluation differs from the run whose weights it has

    def __init__(self, beginning: Beginning) -> None:
        self.beginning = beginning
        super().__init__(
            trainer_class=TwoPhaseTrainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={"prog": program(), "version": __version__, "description": _ABOUT},
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommand that is asked for, since to make the parsers of all takes longer; else all."""
        known = LightningCLI.subcommands()
        asked = known.keys() & set(sys.argv[1:2])
        return {name: known[name] for name in asked or known}

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        there = parser._subcommands_action
        if there is not None and len(self.subcommands()) > 1:  # all are made, for who asks what there is
            there.add_subcommand("export", export_parser(), help=EXPORT)
            there.add_subcommand("sweep", sweep_parser(), help=SWEEP)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return config_parser(**kwargs)

    def setup_parser(self, *arguments: Any) -> None:
        super().setup_parser(*arguments)
        self.parser.add_argument("--print_completion", action=PrintCompletion)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        config, trains = self.config[self.config.subcommand], self.config.subcommand == "fit"
        if trains and (more := usual_callbacks(config, sys.argv)):
            self.config = parser.parse_args([*sys.argv[1:], *more])
            config = self.config.fit
        check_settings(config)
        if trains and limit_epochs(config.trainer):
            rank_zero_info(f"trainer.max_epochs: {EPOCHS}, as nothing else ends the training")
        place_runs(config.trainer, _LOGGER["init_args"]["save_dir"])

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(BestCheckpoint, "checkpoint")
        parser.set_defaults({"trainer.logger": _LOGGER})
        for name in LINKED:
            parser.link_arguments("data", f"model.init_args.{name}", partial(self._told, name), "instantiate")

    def _told(self, name: str, source: L.LightningDataModule | None) -> Any:
        return told(name, source, self.config[self.subcommand].model)

    def _parse_ckpt_path(self) -> None:
        """Lightning would rebuild the model from the checkpoint; here the config alone says what it is."""

    def before_instantiate_classes(self) -> None:
        """Resolve ``--ckpt_path`` and refuse folders and files that cannot be used."""
        config = self.config[self.subcommand]
        root, loggers, path = log_root(config.trainer), configured_loggers(config.trainer), config.ckpt_path
        resumed = path in ("last", "best") and self.subcommand == "fit"
        self.untrained = path == "untrained" and self.subcommand != "fit"
        if self.untrained:
            path = config.ckpt_path = None
        run = run_to_go_on(config, path) if path in ("last", "best") else None
        elsewhere = run is None and bool(loggers) and loggers[0].init_args.get("version") is not None
        if run is not None:
            path = config.ckpt_path = str(checkpoint_of_run(run, path))
            if resumed:
                self._go_on_in(run)
                for logger in loggers:
                    logger.init_args.version = run.name
        if path is not None:
            path = config.ckpt_path = local_checkpoint(str(path))
            check_checkpoint(str(path), self.subcommand == "fit", trusted=config.weights_only is False)
            self._compare_with(run or Path(path).parent.parent)
            run = run or run_of(path)
        if run is not None and self.subcommand != "fit" and not elsewhere:
            root = run if evaluate_within(run, loggers, str(self.subcommand)) else root
        self.beginning.watch(root)
        check_writable(root)
        if resumed:
            self.save_config_kwargs.update(config_filename=RESUMED, overwrite=True)
        elif not loggers:  # no folder of its own, so the newest run has it
            name = "config.yaml" if self.subcommand == "fit" else f"config_{self.subcommand}.yaml"
            self.save_config_kwargs.update(config_filename=name, overwrite=True)
        else:
            version = loggers[0].init_args.get("version")
            folder = root / (version if isinstance(version, str) else f"version_{version}")
            valid = f"there is such a run in {root} already; --ckpt_path last goes on with it"
            require(not (folder / "config.yaml").exists(), "trainer.logger.version", version, valid)

    def _go_on_in(self, run: Path) -> None:
        """Have the run's folder for this process, without what a kill has left half-written."""
        if is_first_process():
            hold(run)
            remove_asides(run)
            self.beginning.resumes_in(run)

    def _compare_with(self, run: Path) -> None:
        """Train with the precision and settings of the run that a checkpoint is of; note others elsewhere."""
        if self.subcommand == "fit":
            self.begun_with = precision_of_run(run)
        before = read_config(run / "config.yaml")
        if before is None:
            return
        config = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False)
        given = yaml.safe_load(config)
        if self.subcommand == "fit":
            require_same_settings(before, given, str(run))
        else:
            self.differs = other_than_trained(before, given)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        config = self._get(self.config_init, "trainer")
        extra: list[Callback] = [self.beginning, FiniteLoss(), EveryImageOnce()]
        given = as_list(config.callbacks)
        check_callbacks(given, self.model)
        if config.enable_progress_bar is not False and not any(isinstance(c, ProgressBar) for c in given):
            if sys.stdout.isatty():
                extra.append(RichProgressBar())
            else:
                extra.append(EpochLines())
                kwargs["enable_progress_bar"] = False
        if config.enable_model_summary is not False and not any(isinstance(c, ModelSummary) for c in given):
            extra.append(ParameterLine())
            kwargs["enable_model_summary"] = False
        check_linked(self.config[self.subcommand].model.get("init_args") or {}, self.model, self.datamodule)
        suit_threads(self.model)
        self._note_threads()
        if config.precision == "auto":
            extra.append(SamePrecision())
            kwargs["precision"] = faster_precision(self.model, config.accelerator, self.begun_with)
            self.config[self.subcommand].trainer.precision = kwargs["precision"]
        else:
            warn_if_slow(config.precision, self.model, config.accelerator)
        if config.enable_checkpointing is not False:
            # The best one first: it is the trainer's checkpoint callback.
            extra += [self._get(self.config_init, "checkpoint"), LastCheckpoint(), OneProcess()]
        self.report = BoardReport(self.config[self.subcommand])
        extra += [SameOptimizer(), EndsBySignal(), self.report]
        if not any(isinstance(callback, Predictions) for callback in given):
            extra.append(Predictions())
        plugins = as_list(config.plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, CheckpointFiles()]
        trainer = self._instantiate_trainer({**config, **kwargs}, extra)
        self.beginning.at(trainer)
        if not config.fast_dev_run and self.subcommand == "fit":
            trainer.loggers = [*trainer.loggers, MetricsFile(run_folder(trainer))]
        return trainer

    def _note_threads(self) -> None:
        """Have the run's config say on how many threads it was, and say where that is not as it was."""
        self._parser(self.subcommand).dump_header = header()
        threads = torch.get_num_threads()
        for path in self.config[self.subcommand].get("config") or []:
            before = threads_of_config(Path(str(path)))
            if before not in (None, threads):
                rank_zero_warn(
                    f"{path} is of a run on {before} threads, here are {threads}: "
                    f"the last bits of sums differ; OMP_NUM_THREADS={before} repeats them"
                )

    def before_fit(self) -> None:
        if self.datamodule is None and not is_overridden("train_dataloader", self.model):
            raise SettingError("data", None, "must be a data module: the model brings no data of its own")
        for callback in self.trainer.callbacks if self._tests() else []:  # type: ignore[attr-defined]
            if isinstance(callback, RobustnessCurve):
                callback.after_fit = False  # the test that follows measures the best checkpoint
        self._started = time.monotonic()

    def _tests(self) -> bool:
        """Whether the model can be tested after the fit, and there is something to test it with."""
        images = any(is_overridden("test_dataloader", one) for one in (self.model, self.datamodule) if one)
        return images and is_overridden("test_step", self.model)

    def after_fit(self) -> None:
        """Test the best checkpoint, write ``results.json`` and print the table."""
        seconds = {"training": time.monotonic() - self._started}
        best = best_weights(self.trainer)
        if self._tests():
            self.trainer.test(self.model, self.datamodule, ckpt_path=best or None, verbose=False)
            seconds["test"] = time.monotonic() - self._started - seconds["training"]
        folder = leave_results(self.trainer, best, seconds)
        if self.trainer.is_global_zero:
            self.report.finish(self.trainer, print_summary(self.trainer, folder, seconds["training"]))

    def before_validate(self) -> None:
        self._say_whose_weights()

    def before_test(self) -> None:
        self._say_whose_weights()
        self._started = time.monotonic()

    def after_test(self) -> None:
        """Write ``results.json``, and say where it is."""
        seconds = {"test": time.monotonic() - self._started}
        folder = leave_results(self.trainer, self.config_init[self.subcommand].ckpt_path, seconds)
        self.report.finish(self.trainer)
        if self.trainer.is_global_zero:
            print(f"results are in {folder}")

    def before_predict(self) -> None:
        self._say_whose_weights()

    def _say_whose_weights(self) -> None:
        """Say which checkpoint is used, and refuse to measure weights that nobody has trained."""
        path = self.config_init[self.subcommand].ckpt_path
        learns = any(parameter.requires_grad for parameter in self.model.parameters())
        valid = "must be last, best or a file, or untrained for the weights that training would begin with"
        require(path is not None or self.untrained or not learns, "ckpt_path", path, valid)
        if is_first_process():
            print(f"weights: {path or 'those that training would begin with'}")
            if self.differs:
                print(f"settings that are not the run's: {self.differs}")
