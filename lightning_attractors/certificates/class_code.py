"""Which code a module runs: that of its class as it was when the certificates learned of it, or another."""

from __future__ import annotations

import inspect
from functools import partial
from types import FunctionType
from typing import Any

from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

# What a subclass may have of its own: none of it changes what a forward pass computes.
_HARMLESS = frozenset(
    [
        *("__init__", "__repr__", "extra_repr", "train", "reset_parameters", "__constants__", "_version"),
        *("state_dict", "load_state_dict", "_save_to_state_dict", "_load_from_state_dict"),
        *("get_extra_state", "set_extra_state", "__getstate__", "__setstate__", "__deepcopy__"),
        # what Python itself writes into classes
        *("__doc__", "__module__", "__qualname__", "__annotations__", "__annotate_func__", "__parameters__"),
        *("__firstlineno__", "__static_attributes__", "__orig_bases__", "__abstractmethods__", "_abc_impl"),
        *("__dict__", "__weakref__", "__init_subclass__", "__subclasshook__"),
    ]
)
# What every call of a module goes through.
CALL = frozenset(
    [
        *("forward", "__call__", "_call_impl", "_wrapped_call_impl", "_slow_forward"),
        *("__getattr__", "__getattribute__"),
    ]
)
# What layers are made of, and their rules too.
_OPERATIONS = (
    *("linear", "conv2d", "relu", "pad", "batch_norm", "max_pool2d", "avg_pool2d"),
    *("adaptive_avg_pool2d", "dropout", "pixel_shuffle", "pixel_unshuffle"),
)
_operations = partial(lambda names: [vars(functional)[name] for name in names], _OPERATIONS)
_AT_IMPORT = _operations()

Code = dict[tuple[type, str], tuple[Any, Any]]
_KNOWN: dict[type[nn.Module], Code] = {}


def remember(kind: type[nn.Module], names: frozenset[str] | None = None) -> None:
    """Keep what a class computes by, for ``is_unchanged``.

    Args:
        kind: the class.
        names: of what matters, beside what every call goes through; all but what is harmless if not given.
    """
    _KNOWN.setdefault(kind, _code(kind, names))
    _NAMES.setdefault(kind, names)


_NAMES: dict[type[nn.Module], frozenset[str] | None] = {}


def is_unchanged(kind: type[nn.Module]) -> bool:
    """Whether nobody has put other functions into a remembered class, its bases or torch's operations."""
    return _code(kind, _NAMES[kind]) == _KNOWN[kind] and _operations() == _AT_IMPORT


def _code(kind: type[nn.Module], names: frozenset[str] | None) -> Code:
    """Functions and properties of a class and its bases, with what a function executes.

    To that belongs ``F``, as torch's layers call what :data:`_OPERATIONS` are looked up in.
    """
    found: Code = {}
    for base in kind.__mro__:
        for name, value in vars(base).items():
            # of nn.Module itself libraries change a lot, such as ``to``
            wanted = CALL if base is nn.Module else CALL | names if names is not None else None
            matters = name not in _HARMLESS if wanted is None else name in wanted
            if matters and _is_code(value):
                function = isinstance(value, FunctionType)
                executed = (value.__code__, value.__globals__.get("F")) if function else None
                found[base, name] = value, executed
    return found


def _is_code(value: Any) -> bool:
    return isinstance(value, FunctionType | staticmethod | classmethod) or _is_computed(value)


def _is_computed(value: Any) -> bool:
    """Whether an attribute is computed when it is read, as a property is."""
    wrapped = isinstance(value, staticmethod | classmethod | type)
    return not wrapped and (inspect.isdatadescriptor(value) or inspect.ismethoddescriptor(value))


def runs_code_of(subclass: type[nn.Module], kind: type[nn.Module]) -> bool:
    """Whether a subclass overrides nothing of a class but its constructor and what it is shown as.

    Nor may it compute attributes, which could be those that are the class's weights.
    """
    order = subclass.__mro__
    own = {name: value for base in order[: order.index(kind)] for name, value in vars(base).items()}
    inherited = {name for base in kind.__mro__ for name in vars(base)}
    overridden = own.keys() & (inherited | CALL)
    computed = {name for name, value in own.items() if _is_computed(value)}
    return not (overridden | computed) - _HARMLESS


def type_without_parametrizations(module: nn.Module) -> type[nn.Module]:
    """The type of a module, or the one that :mod:`torch.nn.utils.parametrize` has derived it from.

    A type that only looks as if it had been derived there counts as itself.
    """
    derived = type(module)
    if not is_parametrized(module):
        return derived
    genuine = vars(derived).keys() <= {*module.parametrizations, *_HARMLESS}  # type: ignore[misc]
    return derived.__bases__[0] if genuine else derived


def put_in(module: nn.Module, names: frozenset[str] | None = None) -> list[str]:
    """What a module has of its own in place of something that its class computes by.

    A method of the class itself, bound to the module, is none: trainers leave such.

    Args:
        module: the module.
        names: of what matters; everything that is code in the class if not given.
    """
    found = []
    for name, value in vars(module).items():
        code = next((vars(base)[name] for base in type(module).__mro__ if name in vars(base)), None)
        matters = code is not None and name not in _HARMLESS and _is_code(code)
        relevant = matters if names is None else name in names
        own = inspect.ismethod(value) and value.__self__ is module and value.__func__ is code
        if relevant and not own:
            found.append(name)
    return found
