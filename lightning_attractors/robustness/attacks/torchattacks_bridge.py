"""Attacks of the library torchattacks, for whatever gives logits."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attractors.errors import SettingError, require
from lightning_attractors.robustness.attacks.base import Logits
from lightning_attractors.robustness.attacks.calls import imported, require_shape
from lightning_attractors.robustness.randomness import seed_of


class LogitsModule(nn.Module):
    """A function of images as a module in evaluation mode, which attack libraries ask for."""

    def __init__(self, logits_fn: Logits, device: torch.device) -> None:
        super().__init__()
        self.logits_fn = logits_fn
        # attacks ask the first parameter where the model is
        self.anchor = nn.Parameter(torch.empty(0, device=device), requires_grad=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K), in float32 at least."""
        logits = self.logits_fn(images)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class LibraryAttack:
    """An attack class with its arguments, one of which is the strength.

    Args:
        path: import path of a class, or the class, that is made of a model and arguments, and called with
            images in [0, 1] and labels, as those of torchattacks are.
        arguments: of the class, beyond model and strength.
        strength: name of the argument that is the strength.
        shown: what it is called in messages, by default its path or name.

    Raises:
        SettingError: if there is no such class or it has no such argument.
    """

    def __init__(
        self, path: str | type, arguments: dict[str, Any], strength: str = "eps", shown: str = ""
    ) -> None:
        self.path = shown or (path if isinstance(path, str) else path.__name__)
        self.arguments, self.strength = arguments, strength
        self.attack: Any = imported(path) if isinstance(path, str) else path
        require(inspect.isclass(self.attack), "attacks", self.path, "must be a class")
        self._check_arguments()

    def _check_arguments(self) -> None:
        known = [name for name in inspect.signature(self.attack).parameters if name not in ("model", "self")]
        listed = f"is no argument of {self.path}; it has {', '.join(known)}"
        require(self.strength in known, "strength", self.strength, listed)
        for name in self.arguments:
            require(name in known, "init_args", name, listed)
        try:
            inspect.signature(self.attack).bind(None, **{**self.arguments, self.strength: 0.0})
        except TypeError as error:
            raise SettingError("init_args", self.arguments, f"{self.path}: {error}") from error

    def __call__(
        self, logits_fn: Logits, images: Tensor, labels: Tensor, strength: float, key: Sequence[int]
    ) -> Tensor:
        """The attacked images, in the global random numbers; ``key`` is for attacks with a seed of their own.

        Raises:
            SettingError: if the attack does not get along with the model, its arguments or the images.
        """
        model = LogitsModule(logits_fn, images.device)
        try:
            settings = {**self._seed(key), **self.arguments, self.strength: strength}
            attack = self.attack(model, **settings)
            moved: Tensor = attack(images, labels)
        except SettingError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            settings = {**self.arguments, self.strength: strength}  # as they were given
            text = f"{self.path} cannot attack images {tuple(images.shape)} with it ({reason})"
            raise SettingError("init_args", settings, text) from error
        require_shape(self.path, moved, images)
        return moved

    def _seed(self, key: Sequence[int]) -> dict[str, int]:
        """The argument ``seed`` of a class that takes the time for it if it has none."""
        parameter = inspect.signature(self.attack).parameters.get("seed")
        if parameter is None or parameter.default is not None:
            return {}
        return {"seed": seed_of(key)}
