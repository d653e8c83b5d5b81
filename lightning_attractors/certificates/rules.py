"""The rules that certificates know layers by: one registry, open to layers from elsewhere.

A layer type has up to three rules. Its interval rule serves L∞ (``propagate``), its Lipschitz
constant and its float32 error serve L2 (``l2_radii``). A certificate is as sound as the rules
of its layers: they hold for every module of the type, whatever its attributes, or refuse it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from lightning_attractors.certificates.class_code import (
    remember,
    runs_code_of,
    type_without_parametrizations,
)
from lightning_attractors.certificates.float32_errors import Evaluation
from lightning_attractors.certificates.guards import (
    require_type,
    require_unchanged,
    require_untouched,
    unknown,
)
from lightning_attractors.errors import SettingError, require

Interval = tuple[Tensor, Tensor]
IntervalRule = Callable[[Any, Tensor, Tensor], Interval]
LipschitzRule = Callable[[Any], float]
Float32Rule = Callable[[Any], Callable[[Evaluation], Evaluation]]
Rule = TypeVar("Rule")


class RuleTable(Generic[Rule]):
    """Rules by the type of layer.

    Args:
        what: what the rules give, for the message that a type has none.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._rules: dict[type[nn.Module], Rule] = {}

    def __contains__(self, kind: type[nn.Module]) -> bool:
        return kind in self._rules

    def add(self, kind: type[nn.Module], rule: Rule) -> None:
        """Enter a type's rule."""
        remember(kind)
        self._rules[kind] = rule

    def of_type(self, module: nn.Module) -> Rule:
        """The rule of a module's own type.

        Raises:
            SettingError: naming the type, if it has none, be it of a subclass of one that has; or as
                :func:`~lightning_attractors.certificates.guards.require_untouched` and
                :func:`~lightning_attractors.certificates.guards.require_unchanged`.
        """
        require_type(module, tuple(self._rules), self._what)
        require_unchanged(type(module))
        return self._rules[type(module)]

    def of_code(self, module: nn.Module) -> Rule:
        """The rule of the type whose code a module runs: a subclass that overrides none of it has its rule.

        Raises:
            SettingError: naming the type, if there is no such rule; or as :meth:`of_type`.
        """
        own = type_without_parametrizations(module)
        for kind in own.__mro__:
            if kind in self._rules and runs_code_of(own, kind):
                require_untouched(module)
                require_unchanged(kind)
                return self._rules[kind]
        raise unknown(module, tuple(self._rules), self._what)


INTERVALS = RuleTable[IntervalRule]("interval bounds")
LIPSCHITZ = RuleTable[LipschitzRule]("L2 bounds")
FLOAT32 = RuleTable[Float32Rule]("L2 bounds")


def isometry(layer: nn.Module) -> float:
    """The Lipschitz rule of layers that only rearrange their inputs: 1, exactly, and not worth a mention."""
    return 1.0


def register_rule(
    kind: type[nn.Module],
    *,
    interval: IntervalRule | None = None,
    lipschitz: LipschitzRule | None = None,
    float32: Float32Rule | None = None,
) -> None:
    """Tell the certificates what is known of a layer type: whichever rules are given.

    A rule is called with modules of that type only, after it was made sure that no hook and no ``forward``
    put in changes them. What else it takes for granted (the type of a child, a mode, the precision of a
    weight) it has to check itself, with :mod:`~lightning_attractors.certificates.guards`.

    Args:
        kind: the type of layer.
        interval: takes a module and the lower and upper ends of its inputs, each (B, ...), float32 or
            float64; gives bounds of its outputs, of their shape, in the same precision. In float64 they hold
            for what float32 makes of the inputs too: see
            :func:`~lightning_attractors.certificates.rounding_error`. A layer with parts passes on to
            :func:`~lightning_attractors.certificates.propagate`.
        lipschitz: takes a module, gives a bound of ‖f(x) − f(y)‖₂ / ‖x − y‖₂;
            :func:`~lightning_attractors.certificates.isometry` for one that only rearranges.
        float32: takes a module; gives what takes an
            :class:`~lightning_attractors.certificates.Evaluation` of its inputs and gives that of its
            outputs. Together with ``lipschitz`` it makes L2 certificates.

    Raises:
        SettingError: if no rule is given, or the type has one of the kind: a rule that others rely on is not
            replaced.

    Example:
        >>> class Negated(nn.Module):
        ...     def forward(self, x):
        ...         return -x
        >>> register_rule(
        ...     Negated,
        ...     interval=lambda module, lower, upper: (-upper, -lower),
        ...     lipschitz=isometry,
        ...     float32=lambda module: lambda x: -x,
        ... )
    """
    given: list[tuple[str, RuleTable[Any], Any]] = [
        ("interval", INTERVALS, interval),
        ("lipschitz", LIPSCHITZ, lipschitz),
        ("float32", FLOAT32, float32),
    ]
    new = [(name, table, rule) for name, table, rule in given if rule is not None]
    valid = "must be given at least one of the rules interval, lipschitz and float32"
    require(len(new) > 0, "register_rule", kind.__name__, valid)
    for name, table, _ in new:
        if kind in table:
            raise SettingError("register_rule", kind.__name__, f"has a rule already: {name}")
    for _, table, rule in new:
        table.add(kind, rule)
