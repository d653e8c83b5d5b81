"""Optimisers per parameter group and a one-cycle schedule, both made to be set from YAML."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_attractors.errors import SettingError, require

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]


class GroupedOptimizer(Optimizer):
    """Several optimisers that step as one, each on parameters of its own.

    Its parameter groups are those of its members, so schedulers, gradient clipping and gradient scaling see
    one optimiser.

    Args:
        members: optimisers over disjoint parameters, at least one.
    """

    def __init__(self, members: list[Optimizer]) -> None:
        super().__init__([group for member in members for group in member.param_groups], {})
        self.members = members

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            member.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        states = state_dict.get("members", [])
        require(
            len(states) == len(self.members), "optimizers", len(self.members), "differs from the checkpoint's"
        )
        for member, state in zip(self.members, states, strict=True):
            member.load_state_dict(state)
        # Loading replaces the members' groups; schedulers reach them through ours.
        self.param_groups = [group for member in self.members for group in member.param_groups]


def build_optimizer(
    module: nn.Module, default: OptimizerFactory, by_prefix: dict[str, OptimizerFactory]
) -> Optimizer:
    """The optimiser of all trainable parameters of ``module``.

    Args:
        module: the module.
        default: makes the optimiser of the parameters that no prefix names.
        by_prefix: makes the optimisers of the parameters whose name starts with the key; the longest
            matching key wins.

    Raises:
        SettingError: if a key matches no parameter, or an optimiser refuses its parameters.
    """
    groups: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in ["", *by_prefix]}
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    for name in names:
        prefix = max((key for key in groups if name.startswith(key)), key=len)
        groups[prefix].append(module.get_parameter(name))
    for prefix in by_prefix:
        require(
            len(groups[prefix]) > 0, "optimizers", prefix, f"must be the start of a parameter's name: {names}"
        )
    members = []
    for prefix, parameters in groups.items():
        if parameters:
            try:
                members.append((by_prefix[prefix] if prefix else default)(parameters))
            except ValueError as error:
                raise SettingError(
                    f"optimizers[{prefix!r}]" if prefix else "optimizer", "", str(error)
                ) from error
    return members[0] if len(members) == 1 else GroupedOptimizer(members)


class OneCycle(LRScheduler):
    """One cosine rise and one cosine fall of every group's learning rate over the whole training.

    Each group's own learning rate is the peak, so groups with different optimisers share one schedule.
    Step it once per optimizer step.

    Args:
        optimizer: the optimiser.
        warmup: share of the steps that the rise takes, in (0, 1).
        start: learning rate at the beginning, as a fraction of the peak, in [0, 1].
        final: learning rate at the end, as a fraction of the peak, in [0, 1].
        total_steps: length of the training in optimizer steps; when left out, the model fills it in.

    Raises:
        SettingError: if a setting lies outside its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.3,
        start: float = 0.04,
        final: float = 1e-3,
        total_steps: int | None = None,
    ) -> None:
        require(0 < warmup < 1, "warmup", warmup, "must lie strictly between 0 and 1")
        require(0 <= start <= 1, "start", start, "must lie in [0, 1]")
        require(0 <= final <= 1, "final", final, "must lie in [0, 1]")
        self.warmup, self.start, self.final = warmup, start, final
        self.total_steps = total_steps
        super().__init__(optimizer)

    def _factor(self) -> float:
        progress = min(1.0, self.last_epoch / self.total_steps) if self.total_steps else 0.0
        if progress < self.warmup:
            low, phase = self.start, 1 - progress / self.warmup
        else:
            low, phase = self.final, (progress - self.warmup) / (1 - self.warmup)
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * phase))

    def state_dict(self) -> dict[str, Any]:
        # The length is this training's own: a run that is resumed for longer has a longer cycle.
        return {key: value for key, value in super().state_dict().items() if key != "total_steps"}

    def get_lr(self) -> list[float | Tensor]:
        factor = self._factor()
        return [base * factor for base in self.base_lrs]
