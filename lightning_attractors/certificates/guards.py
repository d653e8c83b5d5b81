"""Whether a module computes what its type says, in the arithmetic that certificates are of.

Every certificate asks here first, and none is given where it does not. A layer may be of a subclass that does
something else, may have hooks or another ``forward`` put in, may be in a mode that leaves it undetermined,
may hold a weight that an old ``weight_norm`` has left behind, or may run in bfloat16 or TF32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from lightning_attractors.errors import SettingError, require
from lightning_attractors.linalg import products_are_exact

# What a subclass may have of its own: none of it changes what a forward pass computes.
_HARMLESS = frozenset(
    [
        *("__init__", "__repr__", "extra_repr", "train", "reset_parameters", "__constants__", "_version"),
        *("state_dict", "load_state_dict", "_save_to_state_dict", "_load_from_state_dict"),
        # what Python itself writes into classes
        *("__doc__", "__module__", "__qualname__", "__annotations__", "__annotate_func__", "__parameters__"),
        *("__firstlineno__", "__static_attributes__", "__orig_bases__", "__abstractmethods__", "_abc_impl"),
        *("__dict__", "__weakref__", "__init_subclass__", "__subclasshook__"),
    ]
)


def computes_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module runs the code of a class: it is of it, or of a subclass that overrides none of it.

    Weights that :mod:`torch.nn.utils.parametrize` computes count as the class's own.
    """
    return isinstance(module, kind) and runs_code_of(type_before_parametrizations(module), kind)


def runs_code_of(subclass: type[nn.Module], kind: type[nn.Module]) -> bool:
    """Whether a subclass overrides nothing of a class but its constructor and what it is shown as."""
    order = subclass.__mro__
    own = {name for base in order[: order.index(kind)] for name in vars(base)}
    inherited = {name for base in kind.__mro__ for name in vars(base)}
    return not (own & inherited) - _HARMLESS


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
        SettingError: naming the type, if it has forward hooks or a ``forward`` that was put in, or is
            parametrized and in train mode.
    """
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    why = "must have no forward hooks, such as pruning and nn.utils.weight_norm add, nor a forward put in"
    require(not hooked, "module", type(module).__name__, why)
    require_eval(module, not (module.training and is_parametrized(module)))


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


def sums_in_float32(device: torch.device) -> bool:
    """Whether a device takes sums of float32 products in float32: convolutions on CUDA use TF32 by default.

    ``torch.backends.cudnn.allow_tf32 = False`` changes that.
    """
    backend = torch.backends.cudnn if device.type == "cuda" else torch.backends.mkldnn
    return products_are_exact() and backend.conv.fp32_precision in ("none", "ieee")
