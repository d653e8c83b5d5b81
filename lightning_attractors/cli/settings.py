"""Settings that parse, but that a run cannot be made of, or that would be ignored without a word."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.callbacks import LearningRateFinder

from lightning_attractors.callbacks import BestCheckpoint, LastCheckpoint
from lightning_attractors.cli.runs import as_list, configured_loggers
from lightning_attractors.cli.told_by_data import LINKED
from lightning_attractors.cli.usage import class_at
from lightning_attractors.contracts import linked_of
from lightning_attractors.errors import require
from lightning_attractors.models import AttractorClassifier, Classifier

EPOCHS = 20  # of a training that nothing else ends; Lightning's own default is 1000
_ATTRACTOR_CALLBACKS = ("StabilityCertificate", "AttractorPictures")
_LARGEST_SEED = 2**32 - 1
_AT_LEAST_1: tuple[Callable[[Any], bool], str] = (lambda value: value >= 1, "must be at least 1")
# Of Lightning's Trainer, which divides by some of them in the middle of an epoch.
_OF_TRAINER: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_nodes": _AT_LEAST_1,
    "accumulate_grad_batches": _AT_LEAST_1,
    "check_val_every_n_epoch": (_AT_LEAST_1[0], "must be null, or at least 1"),
    "val_check_interval": (lambda value: not isinstance(value, int | float) or value > 0, "must be above 0"),
    "gradient_clip_val": (lambda value: 0 <= value < math.inf, "must be null, or finite and at least 0"),
    "num_sanity_val_steps": (lambda value: value >= -1, "must be at least 0, or -1 for all batches"),
}


def check_settings(config: Namespace) -> None:
    """Check what Lightning would notice late or never.

    Args:
        config: of a subcommand, parsed.

    Raises:
        SettingError: naming the setting.
    """
    seed, trainer = config.get("seed_everything"), config.trainer
    fits = seed is None or isinstance(seed, bool) or 0 <= seed <= _LARGEST_SEED
    require(fits, "seed_everything", seed, f"must be a boolean, or from 0 to {_LARGEST_SEED}")
    for name, (fits_one, valid) in _OF_TRAINER.items():
        value = trainer.get(name)
        require(value is None or fits_one(value), f"trainer.{name}", value, valid)
    forks = any(word in str(trainer.strategy) for word in ("fork", "spawn", "notebook"))
    valid = "must be one as ddp: what forked processes train or measure is not known to what comes after them"
    require(not forks, "trainer.strategy", trainer.strategy, valid)
    barebones = bool(trainer.get("barebones"))
    require(not barebones, "trainer.barebones", True, "must be false: a run has a logger and checkpoints")
    valid = "must be at least 0, or -1 for no limit"
    require((trainer.get("max_epochs") or 0) >= -1, "trainer.max_epochs", trainer.get("max_epochs"), valid)


def limit_epochs(trainer: Namespace) -> bool:
    """Have a training end after a few epochs where nothing else ends it; whether that is so."""
    endless = trainer.get("max_epochs") is None and trainer.get("max_steps") == -1
    ending = ("EarlyStopping", "Timer")
    paths = [str(one.get("class_path", "")) for one in as_list(trainer.get("callbacks"))]
    endless = endless and trainer.get("max_time") is None
    endless = endless and not any(path.rpartition(".")[2] in ending for path in paths)
    if endless:
        trainer.max_epochs = EPOCHS
    return endless


def usual_callbacks(config: Namespace, arguments: Sequence[str]) -> list[str]:
    """What to add to a command line without a config file: the callbacks that shipped configs have.

    Args:
        config: of a subcommand, parsed.
        arguments: the command line; one that speaks of callbacks is left as it is.

    Returns:
        Arguments, none where the model is no :class:`~lightning_attractors.models.AttractorClassifier`.
    """
    spoken = any(argument.startswith("--trainer.callbacks") for argument in arguments)
    if spoken or config.get("config") or config.trainer.callbacks is not None or config.get("model") is None:
        return []
    if not issubclass(class_at(config.model.class_path), AttractorClassifier):
        return []
    return [f"--trainer.callbacks+={callback}" for callback in _ATTRACTOR_CALLBACKS]


def check_linked(given: Mapping[str, Any], model: Any, data: Any) -> None:
    """See that a model's settings that are the data's are not set to something else.

    Args:
        given: the model's settings as the config has them.
        model: the model that was made, with the data's.
        data: the data module, or None.

    Raises:
        SettingError: naming the setting.
    """
    defaults = inspect.signature(type(model)).parameters
    for name in LINKED:
        theirs = linked_of(data, name)
        if name in given and theirs is not None:
            value = given[name]
            default = defaults[name].default if name in defaults else value  # of a base's we do not know it
            same = value is None or _as_list(value) in (_as_list(theirs), _as_list(default))
            require(same, f"model.{name}", value, f"must be left out, or be the data's own, {theirs}")


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def place_runs(trainer: Namespace, unchanged: str) -> None:
    """Resolve where runs go: below ``default_root_dir`` where that is given; ``~`` is the home folder.

    Args:
        trainer: the trainer's config, changed in place.
        unchanged: the folder that loggers have unless another is given.

    Raises:
        SettingError: if a logger's name or version leads out of its folder.
    """
    root = trainer.get("default_root_dir")
    if root is not None:
        trainer.default_root_dir = str(Path(root).expanduser())
    for logger in configured_loggers(trainer):
        settings = logger.init_args
        if root is not None and settings.save_dir == unchanged:
            settings.save_dir = trainer.default_root_dir
        folder = settings.save_dir
        if folder is not None:
            valid = "must be a folder of this machine; . is the one of now"
            require(folder != "" and "://" not in folder, "trainer.logger.save_dir", folder, valid)
            settings.save_dir = str(Path(folder).expanduser())
        for name in ("name", "version"):
            value = settings.get(name)
            path = PurePath(value if isinstance(value, str) else "")
            inside = not path.is_absolute() and ".." not in path.parts
            require(inside, f"trainer.logger.{name}", value, "must not lead out of save_dir")


def check_callbacks(callbacks: list[Any], model: Any) -> None:
    """See that the callbacks of a config can be used here.

    Args:
        callbacks: those that the config lists.
        model: the model that they will be used with.

    Raises:
        SettingError: naming the callback.
    """
    for callback in callbacks:
        name = type(callback).__name__
        ours = isinstance(callback, BestCheckpoint | LastCheckpoint)
        require(not ours, "trainer.callbacks", name, "is there already; its settings are those of checkpoint")
        finds = isinstance(callback, LearningRateFinder) and isinstance(model, Classifier)
        valid = f"cannot be used: {type(model).__name__} has learning rates by optimizer, and none itself"
        require(not finds, "trainer.callbacks", name, valid)
