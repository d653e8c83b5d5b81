"""Looking at a module from outside: its logits as they run, and everything left as it was."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_attractors.errors import SettingError, require

T = TypeVar("T")
LogitsFunction = Callable[[L.LightningModule, Tensor], Tensor]


class PixelLogits:
    """Logits of images in [0, 1], on the trainer's device and in its precision.

    Args:
        trainer: whose precision it is.
        module: the module.
        function: takes the module and inputs as it wants them, gives logits; ``forward`` if not given.
        mean: of every channel, or none.
        std: of every channel, or none.
    """

    def __init__(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        function: LogitsFunction | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        self.module, self.function = module, function
        self.precision = trainer.precision_plugin
        self.mean, self.std = (_channels(values, module.device) for values in (mean or (0.0,), std or (1.0,)))
        self.__name__ = getattr(function, "__name__", "forward")

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K), differentiable in the images (B, C, H, W)."""
        inputs = self.precision.convert_input((images - self.mean) / self.std)
        with self.precision.forward_context():
            logits = self.module(inputs) if self.function is None else self.function(self.module, inputs)
        if not isinstance(logits, Tensor):
            kind = f"{self.__name__} gives {type(logits).__name__}"
            raise SettingError("logits_fn", self.function and self.__name__, f"must give the logits: {kind}")
        return logits

    def pixels(self, inputs: Tensor) -> Tensor:
        """The images in [0, 1] behind inputs as the module wants them.

        Raises:
            SettingError: if they leave [0, 1], or mean or std are for another number of channels.
        """
        channels = inputs.shape[1]
        for name, values in (("mean", self.mean), ("std", self.std)):
            valid = f"must be one number, or {channels}: one for every channel"
            require(values.numel() in (1, channels), name, values.flatten().tolist(), valid)
        images = inputs.to(self.mean.device) * self.std + self.mean
        low, high = (float(end) for end in images.aminmax())
        slack = 1e-5  # rounding in the normalisation and its inverse
        valid = "must lie from 0 to 1; give mean and std as the inputs were normalised with"
        require(low >= -slack and high <= 1 + slack, "images", [low, high], valid)
        return images.clamp(0, 1)


def _channels(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32, device=device).view(1, -1, 1, 1)


@contextmanager
def undisturbed(module: L.LightningModule, checkpoint: str | None) -> Iterator[None]:
    """The module in evaluation mode without parameter gradients, with the weights of a checkpoint.

    Afterwards modes, flags, weights and random numbers are as they were. Test loops run in inference mode,
    which knows no gradients; here it is off.
    """
    training = [part for part in module.modules() if part.training]
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    with torch.inference_mode(False), isolate_safely():
        before = _weights(module) if checkpoint else None
        try:
            if checkpoint:
                _load(module, checkpoint)
            module.eval()
            module.requires_grad_(False)
            yield
        finally:
            if before is not None:
                module.load_state_dict(before)
            for part in training:
                part.training = True
            for parameter, flag in flags:
                parameter.requires_grad_(flag)


@contextmanager
def isolate_safely() -> Iterator[None]:
    """As Lightning's ``isolate_rng``, also when an exception leaves the block."""
    failure: BaseException | None = None
    with isolate_rng():
        try:
            yield
        except BaseException as error:
            failure = error
    if failure is not None:
        raise failure


def best_checkpoint(trainer: L.Trainer) -> str | None:
    """The file of the best weights, if there is one."""
    path = getattr(trainer.checkpoint_callback, "best_model_path", "")
    return path if path and Path(path).is_file() else None


def _weights(module: L.LightningModule) -> dict[str, Any]:
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else value
        for name, value in module.state_dict().items()
    }


def _load(module: L.LightningModule, path: str) -> None:
    # a file that this very run has written
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)


def together(trainer: L.Trainer, work: Callable[[], T]) -> list[T]:
    """Do something on every rank, and give what all of them found, in the order of the ranks.

    Raises:
        Exception: on every rank what one of them raised, the first that did: nobody waits for it in vain. A
            RuntimeError with its type and text where it cannot be sent.
    """
    found: tuple[T | None, Exception | None]
    try:
        found = work(), None
    except Exception as error:
        found = None, error
    if trainer.world_size == 1:
        everywhere: list[Any] = [found]
    else:
        everywhere = [None] * trainer.world_size
        result, problem = found
        torch.distributed.all_gather_object(everywhere, (result, problem and _sendable(problem)))
    for _, problem in everywhere:
        if problem is not None:
            raise problem
    return [result for result, _ in everywhere]


def _sendable(error: Exception) -> Exception:
    """The error if it survives pickling, or else what it says."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
