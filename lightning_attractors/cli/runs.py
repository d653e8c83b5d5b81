"""Where runs are, which one is the newest, and where its checkpoints are."""

from __future__ import annotations

import os
import re
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import Namespace

from lightning_attractors.callbacks import BestCheckpoint
from lightning_attractors.errors import SettingError, require
from lightning_attractors.reading import UNREADABLE, read_checkpoint

RESUMED = "config_resumed.yaml"  # the settings with which a run goes on
_THREADS = ", threads: "
# What only the subcommands that train nothing have in their config.
_EVALUATES = {"verbose", "return_predictions"}
_IN_FOLDERS = ("BoardLogger", "TensorBoardLogger", "CSVLogger")  # which take any name for that of a folder


def as_list(given: Any) -> list[Any]:
    """What a setting holds that takes one thing, several in a list, or none."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]


def configured_loggers(trainer: Any) -> list[Any]:
    """The configs of a trainer's loggers that write into a folder of their own (``save_dir``)."""
    return [
        item
        for item in as_list(trainer.logger)
        if isinstance(item, Namespace) and "save_dir" in item.get("init_args", {})
    ]


def log_root(trainer: Any) -> Path:
    """The folder under which a trainer config puts the folders of its runs."""
    loggers = configured_loggers(trainer)
    if loggers:
        settings = loggers[0].init_args
        return Path(settings.save_dir) / (settings.get("name") or "")
    root = Path(trainer.default_root_dir or ".")
    return root / "lightning_logs" if trainer.logger is True else root


def run_to_go_on(config: Namespace, name: str) -> Path:
    """The folder of the run whose ``last`` or ``best`` is meant: the newest that trains, by its number.

    It is the one of the logger's ``version`` where that is given, or else the one whose own ``config.yaml``
    is among the config files, and the root itself where runs have no folders of their own.

    Raises:
        SettingError: if there is none.
    """
    root, loggers = log_root(config.trainer), configured_loggers(config.trainer)
    version = loggers[0].init_args.get("version") if loggers else None
    if version is not None:
        run = root / (version if isinstance(version, str) else f"version_{version}")
        require(run.is_dir(), "ckpt_path", name, f"there is no earlier run {run}")
        return run
    for run in (Path(str(file)).resolve().parent for file in reversed(config.get("config") or [])):
        if run.parent == root.resolve() and (run / "checkpoints").is_dir():
            return run
    numbers = [int(found[1]) for path in root.glob("version_*") if (found := _number(path.name))]
    for number in sorted(numbers, reverse=True):
        if _trains(root / f"version_{number}"):
            return root / f"version_{number}"
    if _trains(root):
        return root
    raise SettingError("ckpt_path", name, f"there is no earlier run in {root}")


def run_of(checkpoint: str) -> Path | None:
    """The folder of the run that a checkpoint file is of, or None where it lies elsewhere than in one."""
    folder = Path(checkpoint).parent
    within = folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file()
    return folder.parent if within else None


def evaluate_within(run: Path, loggers: list[Any], subcommand: str) -> bool:
    """Have loggers write into a new folder of a run, ``test``, ``test_2`` and so on, of a subcommand's name.

    Returns:
        Whether the first logger, whose folder is that of all files, is one that can.
    """
    ours = [one for one in loggers if one.class_path.rpartition(".")[2] in _IN_FOLDERS]
    if not ours or ours[0] is not loggers[0]:
        return False
    names = (subcommand if number == 1 else f"{subcommand}_{number}" for number in count(1))
    name = next(name for name in names if not (run / name).exists())
    for logger in ours:
        for key, value in (("save_dir", str(run)), ("name", ""), ("version", name)):
            logger.init_args[key] = value
    return True


def _number(name: str) -> re.Match[str] | None:
    return re.fullmatch(r"version_(\d+)", name)


def _trains(folder: Path) -> bool:
    """Whether a folder is that of a run that trains, or has begun to."""
    if (folder / "checkpoints").is_dir():
        return True
    config = folder / "config.yaml"
    # An empty one is of a run that was killed as it was written, and no reason to go on with another.
    return config.is_file() and not _EVALUATES & (read_config(config) or {}).keys()


def read_config(path: Path) -> dict[str, Any] | None:
    """The content of a run's config, or None where there is none that can be read."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return config if isinstance(config, dict) else None


def header() -> list[str]:
    """What a run's config says, in comments, of where it was run: bits may depend on it."""
    return [
        f"lightning.pytorch=={L.__version__}",
        f"torch=={torch.__version__}{_THREADS}{torch.get_num_threads()}",
    ]


def threads_of_config(path: Path) -> int | None:
    """The number of threads of the run whose config this is, or None where it does not say."""
    try:
        found = re.search(rf"^#.*{_THREADS}(\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return None
    return int(found[1]) if found else None


def precision_of_run(folder: Path) -> str | None:
    """The trainer's precision in a run's newest config, if it can be read."""
    for name in (RESUMED, "config.yaml"):
        trainer = (read_config(folder / name) or {}).get("trainer")
        if isinstance(trainer, dict) and "precision" in trainer:
            return str(trainer["precision"])
    return None


def check_writable(folder: Path) -> None:
    """Create a folder, and refuse one that cannot be written to.

    Raises:
        SettingError: naming the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        problem = f"must be writable ({error.strerror})"
        raise SettingError("trainer.logger save_dir", str(folder), problem) from error
    for path in folder.glob("version_*"):
        valid = "must be the folder of a run, or be moved: its name is taken"
        require(path.is_dir(), "trainer.logger save_dir", str(path), valid)


def checkpoint_of_run(run: Path, name: str) -> Path:
    """The checkpoint ``last`` or ``best`` of a run.

    Raises:
        SettingError: if the run has none, as one that ended before its first epoch did.
    """
    folder = run / "checkpoints"
    path = folder / "last.ckpt" if name == "last" else _best(run, folder)
    problem = f"the newest run, {run}, has no {name} checkpoint: it has not come to the end of an epoch"
    require(path.is_file(), "ckpt_path", name, f"{problem}; start anew, or name a file")
    return path


def _best(run: Path, folder: Path) -> Path:
    """Where a run's best checkpoint is, by its config, and by its newest state where names are patterns."""
    chosen = (read_config(run / "config.yaml") or {}).get("checkpoint") or {}
    best_folder, name = Path(chosen.get("dirpath") or folder).expanduser(), chosen.get("filename") or "best"
    if "{" not in name:
        return best_folder / f"{name}.ckpt"
    for key, state in _states_of_callbacks(folder / "last.ckpt").items():
        if key.startswith(BestCheckpoint.__qualname__) and state["best_model_path"]:
            written = Path(os.path.relpath(state["best_model_path"], state["dirpath"]))
            if os.pardir not in written.parts:
                return best_folder / written
    return best_folder / f"{name}.ckpt"


def _states_of_callbacks(last: Path) -> dict[str, Any]:
    """What callbacks have in a run's newest state; nothing where there is none."""
    try:
        states = read_checkpoint(last)["callbacks"] if last.is_file() else {}
    except UNREADABLE as error:
        problem = f"must be whole, for it says which file is the best ({type(error).__name__}); name one"
        raise SettingError("ckpt_path", str(last), problem) from error
    return dict(states)
