"""What a robustness curve asks of a trainer: images of a split, logits, ranks, and to leave no trace."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import lightning as L
import torch
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from lightning_attractors import contracts
from lightning_attractors.errors import SettingError, require
from lightning_attractors.reading import read_checkpoint
from lightning_attractors.robustness import unchanged_random_numbers, versions

T = TypeVar("T")
Split = Literal["test", "val"]
_SPLITS: tuple[Split, ...] = ("test", "val")  # the one that is measured, if it is there, first
LogitsFunction = Callable[[L.LightningModule, Tensor], Tensor]
UnpackBatch = Callable[[Any], tuple[Tensor, Tensor]]


def choose_split(trainer: L.Trainer, wanted: Split | None) -> Split | None:
    """The split that is wanted, or else test where there is one, or else val; None where there is none.

    A data module has then loaded it, even where the present stage does not need it.
    """
    for split in _SPLITS if wanted is None else (wanted,):
        if _source(trainer, split).is_defined():
            _prepare(trainer, split)
            if wanted is not None or any(_holds_batches(loader) for loader in _loaders(trainer, split)):
                return split
    return None


def first_images(trainer: L.Trainer, split: Split, unpack: UnpackBatch, most: int) -> tuple[Tensor, Tensor]:
    """At most so many images of the first batch of the split's loader, and their labels."""
    for inputs, labels in islice(batches(trainer, split, unpack), 1):
        return inputs[:most], labels[:most]
    raise SettingError("split", split, "must have images")


def pairs(batch: Any) -> tuple[Tensor, Tensor]:
    """Images and labels of a batch that begins with them.

    Raises:
        SettingError: if it does not.
    """
    fits = isinstance(batch, tuple | list) and len(batch) >= 2
    if not (fits and isinstance(batch[0], Tensor) and isinstance(batch[1], Tensor)):
        kind = f"batches of {sorted(batch)}" if isinstance(batch, dict) else type(batch).__name__
        raise SettingError("unpack_batch", None, f"must be a callable that takes {kind} to images and labels")
    return batch[0], batch[1]


def batches(trainer: L.Trainer, split: Split, unpack: UnpackBatch) -> Iterator[tuple[Tensor, Tensor]]:
    """The images of a split as the module wants them, and labels, in the order of its loaders, on the CPU.

    Every rank sees all batches: Lightning's own way of sharing them out repeats images.

    Args:
        trainer: one that is fitting or testing.
        split: whose images.
        unpack: takes a batch of the loader to images and labels.
    """
    for loader in _loaders(trainer, split):
        _require_whole(loader, split)
        with _same_state(loader):
            for batch in loader:
                images, labels = unpack(_transferred(trainer, split, batch))
                shapes = [tuple(t.shape) if isinstance(t, Tensor) else () for t in (images, labels)]
                fits = len(shapes[0]) == 4 and shapes[1] == shapes[0][:1]
                require(fits, "unpack_batch", shapes, "must give images (B, C, H, W) and labels (B,)")
                yield images.detach().float().cpu(), labels.detach().long().cpu()


def _require_whole(loader: Any, split: Split) -> None:
    """Refuse a loader that has only the images of this rank: they are shared out here."""
    for sampler in contracts.samplers_of(loader):
        shares = sampler.num_replicas if isinstance(sampler, DistributedSampler) else 1
        valid = f"must not share out the images of the {split} loader; leave that to the trainer"
        require(shares == 1, "sampler", type(sampler).__name__, valid)


def _transferred(trainer: L.Trainer, split: Split, batch: Any) -> Any:
    """The batch as the split's own loop has it, after the hooks: these may ask for the stage to augment."""
    state = trainer.state
    before = state.stage
    state.stage = RunningStage.VALIDATING if split == "val" else RunningStage.TESTING
    try:
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)
    finally:
        state.stage = before


def _prepare(trainer: L.Trainer, split: Split) -> None:
    stage = "validate" if split == "val" else "test"
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    fitting = trainer.state.fn == "fit"
    if datamodule is not None and (split == "test") == fitting:
        datamodule.setup(stage)


def _source(trainer: L.Trainer, split: Split) -> Any:
    # The loaders that Lightning itself holds have been cut for their rank
    return (trainer.test_loop if split == "test" else trainer.validate_loop)._data_source


def _loaders(trainer: L.Trainer, split: Split) -> list[Any]:
    return list(CombinedLoader(_source(trainer, split).dataloader(), "sequential").flattened)


def _holds_batches(loader: Any) -> bool:
    try:
        return len(loader) > 0
    except TypeError:  # one that streams; or none at all
        return loader is not None


@contextmanager
def _same_state(loader: Any) -> Iterator[None]:
    """A loader's own generator is afterwards in the state it was in."""
    generator = loader.generator if isinstance(loader, DataLoader) else None
    state = None if generator is None else generator.get_state()
    try:
        yield
    finally:
        if generator is not None and state is not None:
            generator.set_state(state)


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
        self.__name__ = "forward" if function is None else contracts.name_of(function)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K), differentiable in the images (B, C, H, W)."""
        inputs = self.precision.convert_input(self.normalised(images))
        with self.precision.forward_context():
            logits = self.module(inputs) if self.function is None else self.function(self.module, inputs)
        if not isinstance(logits, Tensor):
            kind = f"{self.__name__} gives {type(logits).__name__}"
            raise SettingError("logits_fn", self.function and self.__name__, f"must give the logits: {kind}")
        return logits

    def normalised(self, images: Tensor) -> Tensor:
        """The inputs that the module has for images in [0, 1]."""
        return (images - self.mean) / self.std

    @property
    def normalises(self) -> bool:
        """Whether these are others than the images."""
        return bool((self.mean != 0).any() or (self.std != 1).any())

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


def circumstances(trainer: L.Trainer, module: L.LightningModule, weights: str | None) -> dict[str, Any]:
    """Which module it was, and at which point."""
    return {
        "model": type(module).__name__,
        "data": contracts.data_name(trainer.datamodule),  # type: ignore[attr-defined]
        "checkpoint": weights and Path(weights).name,
        "stage": trainer.state.fn and trainer.state.fn.value,
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step,
        "precision": str(trainer.precision),
        "versions": versions(),
    }


def fingerprint(module: L.LightningModule, logits: PixelLogits) -> str:
    """The same for modules of the same class, settings and weights, in the same precision, only.

    Settings are what ``save_hyperparameters`` has saved.
    """
    seen = hashlib.sha256()
    about = (
        type(module).__qualname__,
        dict(module.hparams),
        str(module.device.type),
        logits.precision.precision,
    )
    seen.update(repr((*about, logits.__name__, logits.mean.tolist(), logits.std.tolist())).encode())
    for name, value in module.state_dict().items():
        content = repr(value).encode()
        if isinstance(value, Tensor):
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        seen.update(name.encode() + content)
    return seen.hexdigest()


@contextmanager
def undisturbed(module: L.LightningModule, checkpoint: str | None) -> Iterator[None]:
    """The module in evaluation mode without parameter gradients, with the weights of a checkpoint.

    Afterwards modes, flags, weights and random numbers are as they were. Test loops run in inference mode,
    which knows no gradients; here it is off.
    """
    training = [part for part in module.modules() if part.training]
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    with torch.inference_mode(False), unchanged_random_numbers():
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


def best_checkpoint(trainer: L.Trainer) -> str | None:
    """The file of the best weights, if there is one."""
    path = contracts.best_weights(trainer)
    return path if path and Path(path).is_file() else None


def _weights(module: L.LightningModule) -> dict[str, Any]:
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else value
        for name, value in module.state_dict().items()
    }


def _load(module: L.LightningModule, path: str) -> None:
    checkpoint = read_checkpoint(path)
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
