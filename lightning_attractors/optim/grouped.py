"""Optimisers per parameter group, made to be set from YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer, SparseAdam

from lightning_attractors.errors import SettingError, require
from lightning_attractors.optim.muon import Muon

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
    named = {name: value for name, value in module.named_parameters() if value.requires_grad}
    groups: dict[str, list[str]] = {prefix: [] for prefix in ["", *by_prefix]}
    for name in named:
        groups[max((key for key in groups if name.startswith(key)), key=len)].append(name)
    for prefix in by_prefix:
        valid = f"must be the start of a parameter's name: {list(named)}"
        require(len(groups[prefix]) > 0, "optimizers", prefix, valid)
    members = []
    for prefix, names in groups.items():
        if names:
            setting = f"optimizers[{prefix!r}]" if prefix else "optimizer"
            members.append(_member(setting, by_prefix.get(prefix, default), {n: named[n] for n in names}))
            if isinstance(members[-1], Muon):
                _refuse_embeddings(setting, module, members[-1])
    _refuse_unusable(members)
    return members[0] if len(members) == 1 else GroupedOptimizer(members)


def _member(setting: str, factory: OptimizerFactory, named: dict[str, nn.Parameter]) -> Optimizer:
    """The optimiser of some parameters.

    Raises:
        SettingError: if it refuses them; of one that it would refuse alone too, the name.
    """
    try:
        return factory(list(named.values()))
    except ValueError as error:
        for name, parameter in named.items():
            try:
                factory([parameter])
            except ValueError as alone:
                raise SettingError(setting, name, str(alone)) from error
        raise SettingError(setting, list(named), str(error)) from error


def _refuse_unusable(members: list[Optimizer]) -> None:
    """Refuse what could not step: LBFGS among others, since it asks for the loss many times a step.

    Raises:
        SettingError: naming the optimiser.
    """
    for member in members:
        sparse = isinstance(member, SparseAdam)
        require(not sparse, "optimizer", "SparseAdam", "must be another one: gradients here are dense")
        alone = len(members) == 1 or not isinstance(member, LBFGS)
        require(alone, "optimizers", "LBFGS", "must be the only optimizer, of all parameters")


def _refuse_embeddings(setting: str, module: nn.Module, muon: Muon) -> None:
    """Embeddings are matrices too, so that Muon itself does not know them.

    Raises:
        SettingError: naming the embedding.
    """
    theirs = {id(parameter) for group in muon.param_groups for parameter in group["params"]}
    valid = "is an embedding, a table of rows and no linear map: give it to another optimizer than Muon"
    for name, layer in module.named_modules():
        embeds = isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) and id(layer.weight) in theirs
        require(not embeds, setting, f"{name}.weight", valid)
