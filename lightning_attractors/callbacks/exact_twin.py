"""A copy of a module that computes in float64, and what it computes under."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch
from torch import Tensor, nn


@contextmanager
def exact_arithmetic(device: str = "cpu") -> Iterator[None]:
    """Neither autocast on a device, nor the inference mode of test loops, nor gradients."""
    # Test loops run in inference mode, whose tensors know no derivatives.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
        yield


def exact_twin(module: nn.Module) -> nn.Module:
    """A module that computes the same in float64 on the CPU, from parameters and buffers of its own.

    Unlike a deep copy it leaves the other attributes shared: a module may hold a trainer, data iterators or
    a parser's callables, which cannot be copied. Unlike ``to`` it touches nothing else: metrics move their
    own state, which is shared. Of a compiled module it is a copy of what was compiled.
    """
    compiled = module._modules.get("_orig_mod")
    if compiled is not None:
        return exact_twin(compiled)
    twin = copy.copy(module)
    twin._parameters = {
        name: None if value is None else nn.Parameter(exact(value), requires_grad=False)
        for name, value in module._parameters.items()
    }
    twin._buffers = {name: None if value is None else exact(value) for name, value in module._buffers.items()}
    children = module._modules.items()
    twin._modules = {name: None if child is None else exact_twin(child) for name, child in children}
    if isinstance(twin, L.LightningModule):
        twin._device = torch.device("cpu")
    return twin


def exact(value: Tensor) -> Tensor:
    """A tensor's copy on the CPU, in float64 where it is floating point."""
    dtype = torch.float64 if value.is_floating_point() else value.dtype
    return value.detach().to("cpu", dtype, copy=True)
