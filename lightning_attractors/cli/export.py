"""The subcommand ``export``: a checkpoint as a file that runs without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.cli import instantiate_module

from lightning_attractors import models
from lightning_attractors.cli.checkpoint_checks import check_checkpoint, local_checkpoint
from lightning_attractors.cli.usage import OneLineParser, program
from lightning_attractors.deployment import FormatName, export_model
from lightning_attractors.errors import SettingError, require

EXPORT = "Write a checkpoint's model as ONNX or torch.export, checked against the model."
_NAMES = (
    "The names of the classes, in the order of the logits, are in the file under class_names, a list in "
    "JSON: in ONNX in metadata_props (onnxruntime: session.get_modelmeta().custom_metadata_map), in pt2 an "
    'extra file (names = {"class_names": ""}; torch.export.load(path, extra_files=names)).'
)


def export_parser() -> OneLineParser:
    """The parser of the subcommand's arguments."""
    parser = OneLineParser(prog=f"{program()} export", description=f"{EXPORT} {_NAMES}")
    parser.add_argument("--ckpt_path", type=str, required=True, help="The checkpoint, a file.")
    parser.add_argument("--format", type=FormatName, default="onnx", help="The format of the file.")
    text = "The file to write; by default it is beside the checkpoint, and has its name."
    parser.add_argument("--output", type=str | None, default=None, help=text)
    return parser


def export_checkpoint(arguments: list[str]) -> None:
    """Run the subcommand, and say in one line what is in the file.

    Raises:
        SettingError: naming the argument that cannot work.
    """
    given = export_parser().parse_args(arguments)
    path = Path(local_checkpoint(given.ckpt_path))
    file = path.with_suffix(f".{given.format}") if given.output is None else Path(given.output)
    require(file.suffix == f".{given.format}", "output", str(file), f"must end with .{given.format}")
    require(not file.is_dir(), "output", str(file), "must be a file: there is a folder of that name")
    check_checkpoint(str(path), resumes=False)
    model = model_of(path)
    print(export_model(model, file, image_shape_of(model), given.format))


def model_of(path: Path) -> L.LightningModule:
    """The model of a checkpoint, as its settings there say.

    Raises:
        SettingError: if the checkpoint does not hold all of them, or other weights than they need.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    settings = dict(content.get("hyper_parameters") or {})
    settings.pop("_instantiator", None)
    if "model_class" in content:  # of a model of this package, made in Python
        settings.setdefault("_class_path", f"{models.__name__}.{content['model_class']}")
    name = settings.get("_class_path")
    require(name is not None, "ckpt_path", str(path), "must name the class of its model, as those of runs do")
    try:
        model = instantiate_module(L.LightningModule, settings)
    except Exception as error:  # of the parser, or of any class that the settings name
        cure = "or be loaded and exported in Python, by lightning_attractors.deployment.export_model"
        valid = f"must hold the settings of its {name}, {cure} ({' '.join(str(error).split())[:200]})"
        raise SettingError("ckpt_path", str(path), valid) from error
    model.on_load_checkpoint(content)
    model.load_state_dict(content["state_dict"])
    return model


def image_shape_of(model: L.LightningModule) -> tuple[int, int, int]:
    """The shape (C, H, W) of the images that a model was made for.

    Raises:
        SettingError: if its settings do not say.
    """
    shape: Any = model.hparams.get("image_shape")
    valid = "must be a model with a setting image_shape; lightning_attractors.deployment exports any other"
    require(isinstance(shape, tuple | list) and len(shape) == 3, "ckpt_path", type(model).__name__, valid)
    return cast(tuple[int, int, int], tuple(shape))
