"""The formats of exported graphs: how each is written, and run."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from lightning_attractors.errors import SettingError, require

FormatName = Literal["onnx", "pt2"]
Run = Callable[[Tensor], tuple[Tensor, ...]]
CLASS_NAMES = "class_names"  # under which they are in a file, a list in JSON
_LARGEST = 2**31 - 2**20  # bytes of an ONNX file, which protobuf limits, with some room for the graph


class Format(ABC):
    """A format of files.

    Attributes:
        packages: what it needs, and this package does not.
    """

    packages: tuple[str, ...] = ()

    def require_installed(self) -> None:
        """Refuse the format where what it needs is not installed.

        Raises:
            SettingError: with what to install.
        """
        for name in self.packages:
            valid = f'it needs {name}: pip install "lightning-attractors[export]"'
            require(find_spec(name) is not None, "format", type(self).__name__.lower(), valid)

    @abstractmethod
    def write(
        self, program: ExportedProgram, outputs: tuple[str, ...], class_names: Sequence[str] = ()
    ) -> bytes:
        """The content of a file with the graph, from ``images`` to outputs of these names.

        Names of classes, in the order of the logits, are in it under :data:`CLASS_NAMES`, as JSON.
        """

    @abstractmethod
    def read(self, content: bytes) -> Run:
        """Runs the graph of such a file on the CPU."""


class PT2(Format):
    """The format of ``torch.export.save``, for ``torch.export.load`` and AOTInductor.

    Class names are an extra file: ``torch.export.load(path, extra_files=found)`` with
    ``found = {"class_names": ""}`` puts them there.
    """

    def write(
        self, program: ExportedProgram, outputs: tuple[str, ...], class_names: Sequence[str] = ()
    ) -> bytes:
        buffer = io.BytesIO()
        program = program.run_decompositions({})  # which leaves no autocast to restore
        torch.export.save(program, buffer, extra_files=_names(class_names))
        return buffer.getvalue()

    def read(self, content: bytes) -> Run:
        module = torch.export.load(io.BytesIO(content)).module()

        def run(images: Tensor) -> tuple[Tensor, ...]:
            found = module(images)
            return (found,) if isinstance(found, Tensor) else tuple(found)

        return run


class ONNX(Format):
    """ONNX, for onnxruntime and what else reads it.

    Class names are in ``metadata_props``: of an ``onnxruntime.InferenceSession``, in
    ``get_modelmeta().custom_metadata_map["class_names"]``.
    """

    packages = ("onnx", "onnxscript", "onnxruntime")

    def write(
        self, program: ExportedProgram, outputs: tuple[str, ...], class_names: Sequence[str] = ()
    ) -> bytes:
        size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
        valid = f"must be pt2: {size / 2**30:.1f} GiB of weights are more than an ONNX file holds"
        require(size <= _LARGEST, "format", "onnx", valid)
        try:
            found: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["images"],
                output_names=outputs,
                dynamic_shapes=({0: Dim("batch")},),
                verbose=False,
            )
        except ImportError as error:  # a part that older ones of its packages lack
            valid = f"{error}; torch {torch.__version__} needs a newer one: pip install --upgrade onnxscript"
            raise SettingError("format", "onnx", valid) from error
        model = found.model_proto
        for key, value in _names(class_names).items():
            model.metadata_props.add(key=key, value=value)
        content: bytes = model.SerializeToString()
        return content

    def read(self, content: bytes) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; it warns of every constant that it folds
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return lambda images: tuple(map(torch.from_numpy, session.run(None, {"images": images.numpy()})))


def _names(class_names: Sequence[str]) -> dict[str, str]:
    """Names of classes, where there are any, as files keep them."""
    return {CLASS_NAMES: json.dumps(list(class_names))} if class_names else {}


FORMATS: Mapping[str, Format] = MappingProxyType({"onnx": ONNX(), "pt2": PT2()})
