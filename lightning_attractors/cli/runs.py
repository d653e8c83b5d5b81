"""Where runs are, and whether what they left can be used."""

from __future__ import annotations

import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace

from lightning_attractors.errors import SettingError, require


def configured_loggers(trainer: Any) -> list[Any]:
    """The configs of a trainer's loggers that write into a folder of their own (``save_dir``)."""
    given = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    return [item for item in given if isinstance(item, Namespace) and "save_dir" in item.get("init_args", {})]


def log_root(trainer: Any) -> Path:
    """The folder under which a trainer config puts the folders of its runs."""
    loggers = configured_loggers(trainer)
    if loggers:
        settings = loggers[0].init_args
        return Path(settings.save_dir) / (settings.get("name") or "")
    root = Path(trainer.default_root_dir or ".")
    return root / "lightning_logs" if trainer.logger is True else root


def newest_checkpoint(root: Path, name: str) -> Path:
    """The newest checkpoint of that name of any run in ``root``.

    Raises:
        SettingError: if there is none.
    """
    found = [*root.glob(f"version_*/checkpoints/{name}.ckpt"), *root.glob(f"checkpoints/{name}.ckpt")]
    if not found:
        raise SettingError("ckpt_path", name, f"there is no {name}.ckpt of an earlier run in {root}")
    return max(found, key=lambda path: path.stat().st_mtime)


def precision_of_run(folder: Path) -> str | None:
    """The trainer's precision in a run's newest config, if it can be read."""
    for name in ("config_resumed.yaml", "config.yaml"):
        try:
            return str(yaml.safe_load((folder / name).read_text())["trainer"]["precision"])
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            continue
    return None


def check_checkpoint(path: str) -> None:
    """Refuse a checkpoint file that is missing, damaged or not Lightning's.

    Raises:
        SettingError: naming the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        whole = False
    require(whole, "ckpt_path", path, "must be a checkpoint file that exists and is whole")
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:
        return  # holds objects that only its own program can load
    needed = {"state_dict", "pytorch-lightning_version"}
    require(
        needed <= content.keys(), "ckpt_path", path, f"must be a Lightning checkpoint, with {sorted(needed)}"
    )


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
