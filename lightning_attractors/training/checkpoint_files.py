"""How a run writes and reads its checkpoints."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_attractors.reading import read_checkpoint
from lightning_attractors.writing import write_atomically


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints that are whole whenever a run is killed, and from which nothing is run.

    A plugin for any trainer: ``Trainer(plugins=[CheckpointFiles()])``. Lightning's own writes into ``TMPDIR``
    first; where that is another file system, the commit is a copy, which a kill or a full disk cuts short.

    Unless it is told ``weights_only=False``, loading makes tensors and plain values only; objects of other
    types are left out. Files that are not local are Lightning's to write and to read.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if storage_options is not None or not _is_local(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        if weights_only is False or not _is_local(path):
            return super().load_checkpoint(path, map_location, weights_only is not False)
        return read_checkpoint(path, map_location)


def _is_local(path: Any) -> bool:
    return "://" not in str(path)
