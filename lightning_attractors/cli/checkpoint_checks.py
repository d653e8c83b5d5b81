"""Whether a file is a checkpoint that can be used, before anything is done with it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_attractors.errors import SettingError, require
from lightning_attractors.reading import UNREADABLE, foreign_types

_ALWAYS = ("state_dict", "pytorch-lightning_version")
# What is restored when a training goes on, and of which kind it is.
_TRAINING = {
    "epoch": int,
    "global_step": int,
    "loops": Mapping,
    "callbacks": Mapping,
    "optimizer_states": list,
    "lr_schedulers": list,
}


def local_checkpoint(path: str) -> str:
    """The path of a checkpoint that may be given as a URL.

    Raises:
        SettingError: if it is on another machine, where nothing could be checked before it is used.
    """
    path = path.removeprefix("file://")
    require("://" not in path, "ckpt_path", path, "must be a file on this machine: fetch it first")
    return path


def check_checkpoint(path: str, resumes: bool, trusted: bool = False) -> None:
    """Refuse a checkpoint file that is missing, damaged or not Lightning's.

    Nothing in it is run, unless it is trusted.

    Args:
        path: the file.
        resumes: whether a training is to go on from it.
        trusted: whether the user has said that the file may bring code.

    Raises:
        SettingError: naming the file.
    """
    content = _content(path, trusted)
    valid = f"must be a Lightning checkpoint, with {sorted(_ALWAYS)}"
    require(isinstance(content, dict) and content.keys() >= set(_ALWAYS), "ckpt_path", path, valid)
    version = content["pytorch-lightning_version"]
    known = isinstance(version, str) and re.match(r"\d+\.\d+", version) is not None
    require(known, "ckpt_path", path, "must name the version of Lightning that wrote it")
    weights = content["state_dict"]
    fits = isinstance(weights, Mapping) and all(
        isinstance(name, str) and (isinstance(value, Tensor) or name.endswith("_extra_state"))
        for name, value in weights.items()
    )
    require(fits, "ckpt_path", path, "must have a state_dict of tensors by their names")
    if resumes:
        _require_training_state(path, content)


def _content(path: str, trusted: bool) -> Any:
    valid = "must be a checkpoint file that exists and is whole"
    require(Path(path).is_file(), "ckpt_path", path, valid)  # devices have no end
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None
            saved = any(name.endswith("data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        whole = saved = False
    require(whole, "ckpt_path", path, valid)
    require(saved, "ckpt_path", path, "must be a checkpoint: this is another kind of zip file")
    try:
        foreign = [] if trusted else foreign_types(path)
        content = None if foreign else torch.load(path, map_location="cpu", weights_only=not trusted)
    except UNREADABLE as error:
        valid = f"must be a checkpoint that torch can read ({type(error).__name__})"
        raise SettingError("ckpt_path", path, valid) from error
    brings = ", ".join(foreign[:3])
    valid = f"brings types of its own ({brings}); only if you trust the file: --weights_only false"
    require(not foreign, "ckpt_path", path, valid)
    return content


def _require_training_state(path: str, content: dict[str, Any]) -> None:
    for name, kind in _TRAINING.items():
        valid = f"must hold the state of a training to go on from; it has no {name} of a kind that is known"
        require(isinstance(content.get(name), kind), "ckpt_path", path, valid)
    fits = all(
        isinstance(state, Mapping) for state in (*content["optimizer_states"], *content["lr_schedulers"])
    )
    require(fits, "ckpt_path", path, "must hold states of optimisers and schedulers as dictionaries")
    fits = isinstance(content["loops"].get("fit_loop"), Mapping)
    require(fits, "ckpt_path", path, "must hold the state of a fit in loops")
