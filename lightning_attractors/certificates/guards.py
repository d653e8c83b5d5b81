"""Whether a module computes what its type says, in the arithmetic that certificates are of.

Every certificate asks here first, and none is given where it does not. A layer may be of a subclass that does
something else, may have hooks or another ``forward`` put in, may be in a mode that leaves it undetermined,
may hold a weight that an old ``weight_norm`` has left behind, or may run in bfloat16 or TF32.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn, overrides
from torch.nn.modules import module as modules
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.utils import _python_dispatch
from torch.utils._device import DeviceContext

from lightning_attractors.certificates.class_code import (
    is_unchanged,
    put_in,
    runs_code_of,
    type_without_parametrizations,
)
from lightning_attractors.errors import SettingError, require
from lightning_attractors.linalg import products_are_exact

# Containers that a module may keep its parts in, and kinds of tensors that compute as tensors do.
_PLAIN_DICTS = (dict, OrderedDict)
_PLAIN_TENSORS = (Tensor, nn.Parameter)


def computes_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module runs the code of a class: it is of it, or of a subclass that overrides none of it.

    Weights that :mod:`torch.nn.utils.parametrize` computes count as the class's own.
    """
    return isinstance(module, kind) and runs_code_of(type_without_parametrizations(module), kind)


def require_plain(module: nn.Module, kind: type[nn.Module]) -> None:
    """Refuse a module that may compute something else than a class does with the module's attributes.

    Weights that :mod:`torch.nn.utils.parametrize` computes are as good as any in eval mode. In train mode
    they may differ each time, as those of ``parametrizations.spectral_norm`` do.

    Raises:
        SettingError: naming the type, if it is not of the class, is of a subclass that overrides what the
            class does, or as :func:`require_untouched`.
    """
    plain = computes_as(module, kind)
    require(plain, "module", type(module).__name__, f"must compute what {kind.__name__} does")
    require_untouched(module)


def require_untouched(module: nn.Module) -> None:
    """Refuse a module that may compute something else than its type does.

    Raises:
        SettingError: naming the type, if it has forward hooks or a method that was put in, is compiled, its
            weights are no plain tensors or differ from one time to the next, or it is parametrized and in
            train mode.
    """
    name = type(module).__name__
    compiled = module._compiled_call_impl is not None or "_orig_mod" in module._modules
    require(not compiled, "module", name, "must not be compiled: certificates are of it as it is written")
    hooked = module._forward_hooks or module._forward_pre_hooks or put_in(module)
    why = "must have no forward hooks, such as pruning and nn.utils.weight_norm add, nor a forward put in"
    require(not hooked, "module", name, why)
    stores = (module._parameters, module._buffers, module._modules)
    held = [value for store in (*stores[:2], vars(module)) for value in store.values()]
    held = [value for value in held if isinstance(value, Tensor)]
    plain = all(type(store) in _PLAIN_DICTS for store in stores)
    plain = plain and all(type(value) in _PLAIN_TENSORS for value in held)
    require(plain, "module", name, "must hold plain tensors and modules: others may compute as they like")
    if is_parametrized(module):
        require_eval(module, not module.training)
        valid = "must have weights that torch.nn.utils.parametrize computes, always the same ones"
        require(_is_steady(module), "module", name, valid)


def _is_steady(module: nn.Module) -> bool:
    """Whether weights that torch computes are the same with and without gradients, and each time."""
    parts = list(module.parametrizations.values())  # type: ignore[operator]
    if any(type(part) is not ParametrizationList for part in parts):
        return False
    reads = []
    for gradients in (True, False, True):
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            reads.append([part().detach() for part in parts])
    return all(torch.equal(*pair) for read in reads[1:] for pair in zip(reads[0], read, strict=True))


def require_unchanged(kind: type[nn.Module]) -> None:
    """Refuse a class into which somebody has put other functions than it had, and calls that are intercepted.

    Raises:
        SettingError: naming the class, if it or an operation of torch has changed since the certificates know
            of it, or hooks of all modules or modes of torch may change what any module gives.
    """
    why = "must be as it was when its rule was entered, with torch's own operations: something was put in"
    require(is_unchanged(kind), "module", kind.__name__, why)
    hooks = modules._global_forward_hooks or modules._global_forward_pre_hooks
    require(not hooks, "module", kind.__name__, "must run without forward hooks of all modules")
    modes = [type(mode) for mode in overrides._get_current_function_mode_stack()]
    modes += [type(mode) for mode in _python_dispatch._get_current_dispatch_mode_stack()]
    changed = [mode.__name__ for mode in modes if mode is not DeviceContext]
    require(not changed, "module", kind.__name__, f"must run without modes of torch, such as {changed[:1]}")


def require_eval(module: nn.Module, fixed: bool) -> None:
    """Refuse a module whose mode leaves it undetermined what it computes.

    Raises:
        SettingError: naming the type, unless it is ``fixed``.
    """
    why = "must be in eval mode, with running statistics if it has any, even in training against intervals"
    require(fixed, "module", type(module).__name__, why)


def require_type(module: nn.Module, kinds: tuple[type[nn.Module], ...], what: str) -> None:
    """Refuse a module that is not exactly of one of some classes, or may compute something else than they do.

    Args:
        module: the module.
        kinds: the classes; a subclass of one is not one of them.
        what: what is known of these classes only, for the message.

    Raises:
        SettingError: naming the type and those that would be valid, or as :func:`require_untouched`.
    """
    if type(module) not in kinds:
        raise unknown(module, kinds, what)
    require_untouched(module)


def unknown(module: nn.Module, kinds: tuple[type[nn.Module], ...], what: str) -> SettingError:
    """The error that a module is not of the types of which something is known."""
    known = ", ".join(kind.__name__ for kind in kinds)
    return SettingError("module", type(module).__name__, f"has no {what}: must be one of {known}")


def require_float32(*weights: Tensor) -> None:
    """Refuse weights of lower precision than float32.

    Raises:
        SettingError: naming the precision.
    """
    for values in weights:
        precise = values.dtype in (torch.float32, torch.float64)
        require(precise, "precision", values.dtype, "must be float32, which certificates are of")


def require_precision(module: nn.Module) -> None:
    """Refuse parameters and buffers of lower precision than float32.

    Raises:
        SettingError: naming the precision.
    """
    held = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    require_float32(*(values for values in held if values.is_floating_point()))


def sums_in_float32(device: torch.device) -> bool:
    """Whether a device takes sums of float32 products in float32: convolutions on CUDA use TF32 by default.

    ``torch.backends.cudnn.allow_tf32 = False`` changes that.
    """
    backend = torch.backends.cudnn if device.type == "cuda" else torch.backends.mkldnn
    return products_are_exact() and backend.conv.fp32_precision in ("none", "ieee")


def require_sums(device: torch.device) -> None:
    """Refuse a device that is set to take products in less than float32.

    Raises:
        SettingError: if matrix products or convolutions may be in TF32 or bfloat16.
    """
    valid = "must take products in float32, not in TF32 or bfloat16: see torch.backends"
    require(sums_in_float32(device), "device", str(device), valid)


def convolves_by_sums(device: torch.device) -> bool:
    """Whether convolutions on a device sum products: cuDNN and NNPACK may transform them (Winograd, FFT).

    ``torch.backends.cudnn.enabled = False`` has CUDA sum products. On a CPU oneDNN does so, and comes before
    NNPACK where it is enabled.
    """
    if device.type == "cpu":
        direct = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
        return direct or not (torch.backends.nnpack.is_available() and torch._C._get_nnpack_enabled())
    return device.type == "cuda" and not bool(torch.backends.cudnn.enabled)


def require_convolutions_by_sums(device: torch.device) -> None:
    """Refuse a device whose convolutions may be something else than sums of products.

    Raises:
        SettingError: naming the device.
    """
    valid = "must convolve by sums of products, not Winograd or FFT: torch.backends.cudnn.enabled = False"
    require(convolves_by_sums(device), "device", str(device), valid)


@contextmanager
def summing_products(device: torch.device) -> Iterator[None]:
    """Float32 products in float32, and convolutions that sum them, for as long as this lasts."""
    if sums_in_float32(device) and convolves_by_sums(device):
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
