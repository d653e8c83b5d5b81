"""What the batches of an epoch held, so that one that cannot be right is refused and not averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from lightning_attractors.errors import NonFiniteError, require

# Of images: rounding where they were normalised and brought back.
_SLACK = 1e-5


class BatchCheck(Metric):
    """The lowest and the highest image entry, label and logit over the global batch.

    They are kept where the batches are: nothing waits for the device before :meth:`compute`.

    Args:
        num_classes: K; None where labels are anything.

    Example:
        >>> check = BatchCheck(num_classes=3)
        >>> check.update(torch.rand(2, 1, 7, 7), torch.tensor([0, 3]))
        >>> check.compute()["labels"]
        tensor([0., 3.])
    """

    full_state_update = False
    images: Tensor
    labels: Tensor
    logits: Tensor

    def __init__(self, num_classes: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self._warned = False
        for name in ("images", "labels", "logits"):
            # the lowest, and the highest with its sign turned, so that both are minima
            self.add_state(name, torch.full((2,), torch.inf), dist_reduce_fx="min")

    def update(
        self, images: Tensor | None = None, labels: Tensor | None = None, logits: Tensor | None = None
    ) -> None:
        """Note what a batch holds, of any shape; what is not given is not looked at."""
        self.images = _lower(self.images, images)
        self.labels = _lower(self.labels, labels)
        self.logits = _lower(self.logits, logits)

    def compute(self) -> dict[str, Tensor]:
        """Lowest and highest of ``images``, ``labels`` and ``logits``, shape (2,); inf and −inf of none."""
        turned = torch.tensor([1.0, -1.0], device=self.images.device)
        ends = {"images": self.images, "labels": self.labels, "logits": self.logits}
        return {name: turned * end for name, end in ends.items()}

    def require_sound(self, stage: str, cure: Callable[[], str]) -> None:
        """Refuse what was seen if it cannot be right; on all processes, since they look together.

        Args:
            stage: whose batches they are, as ``val``.
            cure: says what to do about logits that are not finite where images are.

        Raises:
            SettingError: if an image was not finite, or a label no class.
            NonFiniteError: if only logits were not finite.
        """
        seen = {name: ends.tolist() for name, ends in self.compute().items() if _any(ends)}
        low, high = seen.get("images", (0.0, 1.0))
        valid = "must be finite, from 0 to 1"
        require(-torch.inf < low <= high < torch.inf, f"{stage} images", [low, high], valid)
        if (low < -_SLACK or high > 1 + _SLACK) and not self._warned:
            self._warned = True
            rank_zero_warn(f"{stage} images range from {low:.4g} to {high:.4g}: models take them in [0, 1]")
        if self.num_classes is not None:
            low, high = seen.get("labels", (0, 0))
            valid = f"must be classes from 0 to {self.num_classes - 1}"
            require(0 <= low <= high < self.num_classes, f"{stage} labels", [low, high], valid)
        low, high = seen.get("logits", (0.0, 0.0))
        if not -torch.inf < low <= high < torch.inf:
            raise NonFiniteError(f"logits of {stage} images range from {low} to {high}: {cure()}")


def _lower(ends: Tensor, values: Tensor | None) -> Tensor:
    if values is None or values.numel() == 0:
        return ends
    low, high = values.detach().aminmax()  # nan, if one of them is
    return torch.minimum(ends, torch.stack([low.float(), -high.float()]))


def _any(ends: Tensor) -> bool:
    """Whether anything was seen."""
    return ends.tolist() != [torch.inf, -torch.inf]
