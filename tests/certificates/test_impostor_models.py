"""Models and classes that compute something else than their layers say: refused, or certified rightly.

Those with layers that are others are in ``test_impostor_layers.py``, with settings that were changed in
``test_impostor_settings.py``; ``test_impostors.py`` has layers by themselves.
"""

import copy
import types

import pytest
import torch
from impostors import FAMILIES, assert_refused, assert_right, nmode, nonexpansive
from torch import nn
from torch.nn import functional

from lightning_attractors.dynamics.nmode import FlowMap
from lightning_attractors.dynamics.nonexpansive import DenseOperator, Monotone
from lightning_attractors.models import NMODE, NonexpansiveNet


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_itself_is_certified_rightly(family):
    assert_right(FAMILIES[family]())


# Subclasses


class Normalising:
    def forward(self, x):
        return super().forward((x - 0.13) / 0.31)


class Called:
    def __call__(self, x):
        return super().__call__(x / 0.1)


class CalledInside:
    def _call_impl(self, x):
        return super()._call_impl(x / 0.1)


class Attributed:
    def __getattr__(self, name):
        found = super().__getattr__(name)
        return nn.Sequential(nn.Hardtanh(-0.1, 0.1), found) if name == "head" else found


@pytest.mark.parametrize("mixin", [Normalising, Called, CalledInside, Attributed])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_subclass_that_computes_otherwise_is_refused(family, mixin):
    base = {"nmode": NMODE, "nonexpansive": NonexpansiveNet}[family]
    kind = type("Mine", (mixin, base), {})
    assert_refused(FAMILIES[family](kind), f"^module='Mine': must compute what {base.__name__} does: it has")
    swapped = FAMILIES[family]()
    swapped.__class__ = kind
    assert_refused(swapped, "^module='Mine'")


@pytest.mark.parametrize(
    ("family", "part"), [("nmode", "backbone"), ("nmode", "head"), ("nonexpansive", "layers")]
)
def test_parts_that_are_computed_are_refused(family, part):
    """They could be others for one caller than for another, or the tenth time."""
    base = {"nmode": NMODE, "nonexpansive": NonexpansiveNet}[family]
    model = FAMILIES[family]()
    model.__class__ = type("Mine", (base,), {part: property(lambda self: self._modules[part])})
    assert_refused(model, f"it has its own \\['{part}'\\]$")


def test_layers_that_are_others_for_the_certificate_are_refused():
    class Mine(NMODE):
        @property
        def features(self):
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    assert_refused(nmode(Mine), "it has its own \\['features'\\]$")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_subclass_that_only_trains_otherwise_is_certified(family):
    class Training:
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def training_step(self, batch, batch_idx):
            return self(batch[0]).sum()

    base = {"nmode": NMODE, "nonexpansive": NonexpansiveNet}[family]
    model = FAMILIES[family](type("Mine", (Training, base), {}))
    model.log = lambda *arguments, **settings: None
    model.forward = types.MethodType(base.forward, model)  # as Lightning leaves it behind a step under DDP
    assert_right(model)


# What is put into a module, and hooks


def hooked(module):
    module.register_forward_hook(lambda module, x, y: -y)


def moved(module):
    module.register_forward_pre_hook(lambda module, x: (x[0] / 0.1,))


def replaced(module):
    old = module.forward
    module.forward = lambda x: -old(x)


def called(module):
    old = module._call_impl
    module._call_impl = lambda *x: -old(*x)


def compiled(module):
    module.compile(backend="eager")


PLACES = {
    "nmode": [
        *(lambda m: m, lambda m: m.backbone, lambda m: m.backbone[0], lambda m: m.backbone[5]),
        *(lambda m: m.layer, lambda m: m.layer.linear, lambda m: m.layer.flow, lambda m: m.head),
    ],
    "nonexpansive": [
        *(lambda m: m, lambda m: m.layers, lambda m: m.layers[0], lambda m: m.layers[2], lambda m: m.head),
        *(
            lambda m: m.layers[2].operator,
            lambda m: m.layers[2].activation,
            lambda m: m.layers[2].activation.function,
        ),
    ],
}


@pytest.mark.parametrize("trick", [hooked, moved, replaced, called, compiled])
@pytest.mark.parametrize(("family", "place"), [(f, n) for f in PLACES for n in range(len(PLACES[f]))])
def test_what_is_put_in_anywhere_is_refused(family, place, trick):
    model = FAMILIES[family]()
    trick(PLACES[family][place](model))
    assert_refused(model, "^module=")
    if trick is not compiled:
        assert_refused(copy.deepcopy(model), "^module=")


def test_inner_methods_that_are_put_in_are_refused():
    model = nmode()
    conv = model.backbone[0]
    conv._conv_forward = lambda x, weight, bias: -functional.conv2d(x, weight, bias)
    assert_refused(model, "^module='Conv2d'")
    model = nmode()
    model.layer.flow._evaluate = lambda gamma, order: -gamma
    assert_refused(model, "^module='FlowMap'")
    model = nonexpansive()
    model.layers[2].count = lambda: 7
    assert_refused(model, "^module='GradientFlow'")


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_of_all_modules_are_refused(family):
    for register in ("register_module_forward_hook", "register_module_forward_pre_hook"):
        handle = vars(torch.nn.modules.module)[register](lambda module, *values: None)
        try:
            assert_refused(FAMILIES[family](), "must run without forward hooks of all modules")
        finally:
            handle.remove()


# Classes that are changed for all


def patches():
    def negative(old):
        return lambda *arguments, **settings: -old(*arguments, **settings)

    for holder, name in [
        *((NMODE, "forward"), (nn.Linear, "forward"), (nn.Conv2d, "_conv_forward"), (FlowMap, "_evaluate")),
        *((nn.Module, "__call__"), (nn.Sequential, "forward"), (functional, "linear"), (functional, "relu")),
    ]:
        yield "nmode", holder, name, negative(vars(holder)[name])
    yield "nmode", nn.Sequential, "__iter__", lambda self: iter([*self._modules.values()][:1])
    for layers in (nn.modules.linear, nn.modules.conv):
        other = types.SimpleNamespace(**vars(functional))
        other.linear, other.conv2d = negative(functional.linear), negative(functional.conv2d)
        yield "nmode", layers, "F", other
    yield "nmode", NMODE, "features", property(lambda self: nn.Sequential(self.backbone, self.layer))
    for holder, name in [(NonexpansiveNet, "forward"), (Monotone, "forward"), (DenseOperator, "adjoint")]:
        yield "nonexpansive", holder, name, negative(vars(holder)[name])


@pytest.mark.parametrize(("family", "holder", "name", "new"), list(patches()))
def test_a_class_that_was_changed_since_is_refused(family, holder, name, new, monkeypatch):
    model = FAMILIES[family]()
    monkeypatch.setattr(holder, name, new)
    assert_refused(model, "^module=")


def test_a_new_body_in_an_old_function_is_refused(monkeypatch):
    def forward(self, x):
        return -x

    monkeypatch.setattr(FlowMap.forward, "__code__", forward.__code__)
    assert_refused(nmode(), "^module=")


def test_modes_that_change_operations_are_refused():
    class Negative(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, arguments=(), settings=None):
            found = function(*arguments, **(settings or {}))
            return -found if function is functional.linear else found

    for family in FAMILIES.values():
        model = family()
        with Negative():
            assert_refused(model, "must run without modes of torch, such as \\['Negative'\\]")
        with torch.device("cpu"):
            assert_right(model)
