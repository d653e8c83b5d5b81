"""The optional contracts, each as a Protocol: none has to be inherited from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_attractors.norms import NormName

FilterPrecision = Literal["32-true", "16-mixed", "bf16-mixed"]
_AUTOCAST = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


@runtime_checkable
class Certified(Protocol):
    """A module that can prove how far images may be moved: in L∞, unless it is a ``CertifiedInNorm``."""

    def certified_radii(self, images: Tensor, labels: Tensor) -> Tensor:
        """Radii (B,) within which images (B, C, H, W) keep their labels (B,), as long as they are in [0, 1].

        Asked without gradients. A SettingError says why there is no certificate, for the report.
        """
        ...


class CertifiedInBox(Certified, Protocol):
    """A module that says of which inputs its radii speak, as ``forward`` takes them.

    An input within its radius keeps its label if all its entries lie between the two ends. Where inputs are
    normalised, radii are only asked for if this is said.
    """

    certified_box: tuple[float, float]


class CertifiedInNorm(Certified, Protocol):
    """A module that says in which norm its radii are."""

    certified_norm: NormName


@runtime_checkable
class HasEquilibria(Protocol):
    """A module with attractors, as fixed points of a flow."""

    def equilibria(self) -> Tensor:
        """The equilibria, shape (K, N), differentiably or not."""
        ...

    def vector_field(self, x: Tensor) -> Tensor:
        """F of states (B, N), of the same shape, visible to autograd."""
        ...


@runtime_checkable
class HasStepMap(Protocol):
    """A module whose flow runs by steps."""

    def step_map(self, x: Tensor) -> Tensor:
        """States (B, N) one step later."""
        ...


@runtime_checkable
class HasGainBounds(Protocol):
    """A module that knows how much it can amplify a change of its input."""

    def gain_bounds(self) -> Mapping[str, float]:
        """Bounds by name; one that is not finite bounds nothing."""
        ...


class FoundTraps(Protocol):
    """A ball around each of K attractors, in L2, that every state comes back to, nearer than before.

    All are of shape (K,): the radius, 0 where nothing was proved; after how many steps a state is back, and
    by which factor nearer; how near the attractor all states of the ball come in the end.
    """

    @property
    def radius(self) -> Tensor: ...

    @property
    def steps(self) -> Tensor: ...

    @property
    def rate(self) -> Tensor: ...

    @property
    def precision(self) -> Tensor: ...


@runtime_checkable
class HasTraps(Protocol):
    """A module that can prove which states end at an attractor."""

    def traps(self) -> FoundTraps:
        """The traps of its ``equilibria``, in their order; a SettingError says why there are none."""
        ...


@runtime_checkable
class HasTubes(Protocol):
    """A module that can prove where the states from all images near an image are, over time."""

    def tubes(self, images: Tensor, radii: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        """For every time, states (B, N) and how far from them, in L2, others may be, shape (B,).

        The others are those from images within radii (B,), in the norm of ``certified_radii``, of images
        (B, C, H, W). The first time is that of the images. A SettingError says why nothing can be proved.
        """
        ...


class HasDivergenceHint(Protocol):
    """A module that knows what to change when its loss is not finite, as ``lower the learning rate``."""

    divergence_hint: str


class Monitored(Protocol):
    """A module that says which logged metric chooses its best checkpoint; ``max`` if it does not say how."""

    monitor: str | None
    monitor_mode: Literal["max", "min"]


class Pictured(Protocol):
    """A module whose dynamics can be drawn."""

    dt: float

    def equilibria(self) -> Tensor:
        """The attractors, shape (K, N), one per class."""
        ...

    def states(self, images: Tensor, **options: Any) -> Iterable[Tensor]:
        """States (B, N) over time, the first one included; takes ``realisation=r`` where it ``is_noisy``."""
        ...


class PicturedInDetail(Pictured, Protocol):
    """What of a module is drawn where it has it, each by itself."""

    observable_label: str
    is_noisy: bool
    coupling: Any
    eigenvalue_bound: float | None

    def observable(self, states: Tensor) -> Tensor:
        """What is shown of states (T, B, N), of the same shape."""
        ...

    def mse_over_time(self) -> Tensor:
        """MSE(t) over the test images, shape (T,)."""
        ...


class HasFilters(Protocol):
    """A module with filters (F, ...), F of them, whose p-norm converges to 1."""

    filters: Tensor
    p: float


class HasCurrents(Protocol):
    """A module that says how its filters respond."""

    def currents(self, images: Tensor) -> Tensor:
        """Currents (B, F, ...) of images (B, C, H, W)."""
        ...


@dataclass(frozen=True)
class FilterPhase:
    """What a module is told about the phase in which its filters learn.

    Attributes:
        epochs: its length T; it comes first, so the epochs in it are those from 0 to T − 1.
        patch_fraction: the share of the positions in images whose patches learn, drawn anew for every batch.
        precision: what to compute in; None for what the trainer's own ``precision`` has set up.
    """

    epochs: int
    patch_fraction: float
    precision: FilterPrecision | None

    def autocast(self, device_type: str) -> AbstractContextManager[Any]:
        """The precision as a context."""
        if self.precision is None:
            return nullcontext()
        dtype = _AUTOCAST[self.precision]
        return torch.autocast(device_type, dtype=dtype, enabled=dtype is not None)


class LearnsFilters(Protocol):
    """A module that moves its filters itself, in the epochs for which the trainer sets ``filter_phase``."""

    filter_phase: FilterPhase | None

    def save_filters(self, path: str | Path) -> None:
        """Write the filters to a file."""
        ...


class HasFrozenPart(Protocol):
    """A module of which a part stays as it is; the trainer says whether batches hold what that part gives."""

    trains_on_features: bool

    def frozen_features(self, images: Tensor) -> Tensor:
        """Features (B, ...) of images (B, C, H, W)."""
        ...


class ServesFeatures(Protocol):
    """A training set whose indices give whole batches, of ``features`` (n, ...) where it has them."""

    is_random: bool
    features: Tensor | None

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W), or features (B, ...), and labels (B,)."""
        ...


class PhasedTrainer(Protocol):
    """A trainer that begins with epochs in which filters learn.

    Attributes:
        filter_epochs: their number; 0 for none.
        learns_filters: whether the present epoch is one of them.
        train_batch_size: what training loaders should have now; None for the data module's own.
        classifier_epochs: the number of epochs that follow them; −1 without a limit.
    """

    filter_epochs: int

    @property
    def learns_filters(self) -> bool: ...

    @property
    def train_batch_size(self) -> int | None: ...

    @property
    def classifier_epochs(self) -> int: ...


class BatchedData(Protocol):
    """A data module that says how many training images are in a batch of one process."""

    batch_size: int


class NamesClasses(Protocol):
    """A data module that has names for its classes, in the order of the labels."""

    class_names: Sequence[str]
