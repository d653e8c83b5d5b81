"""Models that compute something else than their layers say: each is refused, or its certificate holds.

The layers by themselves are in ``test_impostors.py``.
"""

import copy
import math
import types
from contextlib import contextmanager

import pytest
import torch
from adversary import inner_box, margin, smallest
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from lightning_attractors.certificates import convolves_by_sums, summing_products
from lightning_attractors.certificates import guards as guards_of_certificates
from lightning_attractors.dynamics.nmode import FlowMap
from lightning_attractors.dynamics.nonexpansive import DenseOperator, Monotone
from lightning_attractors.errors import SettingError
from lightning_attractors.models import NMODE, NonexpansiveNet

SHAPE, COUNT = (1, 8, 8), 24


def backbone():
    layers = [
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
    ]
    return nn.Sequential(*layers)


def nmode(kind=NMODE, front=None):
    return kind(3, SHAPE, backbone() if front is None else front, width=10).eval()


def nonexpansive(kind=NonexpansiveNet, **settings):
    shape = {"widths": [3], "depths": [1], "strides": [2], "dense_depth": 1, "dense_width": 8}
    return kind(3, SHAPE, **shape, **settings).eval()


FAMILIES = {"nmode": nmode, "nonexpansive": nonexpansive}


def certified(model):
    """Radii for the labels that the model gives, and images and labels."""
    images = torch.rand(COUNT, *SHAPE)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    return model.certified_radii(images, labels), images, labels


def assert_refused(model, match=""):
    with pytest.raises(SettingError, match=match) as caught:
        certified(model)
    assert "\n" not in str(caught.value)


def assert_right(model):
    """Certified, and nothing within the radii changes a label."""
    radii, images, labels = certified(model)
    assert (radii > 0).double().mean() > 0.5
    if isinstance(model, NMODE):
        low, high = inner_box(images, radii, (0.0, 1.0))
        assert bool((smallest(margin(model, labels), low, high, restarts=2, steps=6) >= 0).all())
        return
    for _ in range(20):
        step = torch.randn(images.shape).double()
        step = step / step.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * (0.9999 * radii).view(-1, 1, 1, 1)
        moved = (images.double() + step).float()
        assert torch.equal(model(moved).argmax(dim=1), labels)


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
        *(lambda m: m.layers[2].operator, lambda m: m.activation, lambda m: m.activation.function),
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


# Layers within a model


class Backwards(nn.Sequential):
    def __iter__(self):
        return iter([nn.Flatten()])


class Louder(nn.Sequential):
    def forward(self, x):
        return 10 * super().forward(x)


class Negative(nn.Flatten):
    def forward(self, x):
        return 1 - super().forward(x)


class Stateful(nn.Module):
    """It changes another layer while it runs."""

    def __init__(self, head):
        super().__init__()
        self.others = [head]

    def forward(self, x):
        if self.others[0] is not None:
            self.others[0].weight.data.mul_(-1)
        return x.flatten(1)


@pytest.mark.parametrize(
    "front",
    [
        *(lambda: Backwards(nn.Flatten()), lambda: Louder(nn.Flatten()), Negative, lambda: Stateful(None)),
        lambda: nn.Sequential(torch.compile(nn.Flatten(), backend="eager")),
        lambda: torch.jit.trace(nn.Flatten(), torch.rand(1, *SHAPE)),
        lambda: nn.Sequential(nn.AvgPool2d(2, divisor_override=-1), nn.Flatten()),
        lambda: nn.Sequential(nn.RReLU(), nn.Flatten()),
    ],
    ids=["iter", "forward", "flatten", "state", "compiled", "traced", "divisor", "rrelu"],
)
def test_a_backbone_that_is_not_what_it_looks_like_is_refused(front):
    assert_refused(nmode(front=front()))


def test_a_backbone_that_changes_another_layer_is_refused():
    model = nmode()
    model.backbone = nn.Sequential(Stateful(model.head))
    model.layer.linear = nn.Linear(64, 10)
    assert_refused(model, "^module='Stateful'")


class Linear(nn.Linear):
    def forward(self, x):
        return -super().forward(x)


class Disguised(Linear):
    """It has what parametrized modules have, but is no class that torch has derived."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.parametrizations = nn.ModuleDict({"weight": nn.Identity()})


def swapped(kind):
    def linear():
        made = nn.Linear(10, 3)
        made.__class__ = kind
        return made

    return linear


class Computed(nn.Linear):
    """Its weight is another one with a gradient."""

    @property
    def weight(self):
        first = self._parameters["weight"]
        return first if torch.is_grad_enabled() else 0.01 * first


class Other(nn.Parameter):
    @classmethod
    def __torch_function__(cls, function, types, arguments=(), settings=None):
        with torch._C.DisableTorchFunctionSubclass():
            found = function(*arguments, **(settings or {}))
        return -found if function is functional.linear else found


class Noisy(nn.Module):
    def forward(self, weight):
        return weight + torch.rand_like(weight)


class OfGradients(nn.Module):
    def forward(self, weight):
        return weight if torch.is_grad_enabled() else 0.01 * weight


class Late(dict):
    """Items are others than values."""

    def __getitem__(self, name):
        return 0.01 * super().__getitem__(name)


def with_weight(kind):
    linear = nn.Linear(10, 3)
    linear.weight = kind(linear.weight.data)
    return linear


def with_parametrization(kind):
    linear = nn.Linear(10, 3)
    parametrize.register_parametrization(linear, "weight", kind())
    return linear.eval()


def late():
    linear = nn.Linear(10, 3)
    vars(linear)["_parameters"] = Late(linear._parameters)
    return linear


@pytest.mark.parametrize(
    "linear",
    [
        *(lambda: Linear(10, 3), swapped(Linear), lambda: Disguised(10, 3).eval(), swapped(Computed)),
        *(lambda: with_weight(Other), late, lambda: nn.Linear(10, 3).bfloat16().requires_grad_(False)),
        *(lambda: with_parametrization(Noisy), lambda: with_parametrization(OfGradients)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(10, 3)),
    ],
    ids=["subclass", "swapped", "disguised", "computed", "tensor", "dict", "half", "noisy", "grad", "train"],
)
def test_a_head_that_is_not_what_it_looks_like_is_refused(linear):
    model, labels = nmode(), torch.arange(COUNT) % 3
    model.head = linear()
    with pytest.raises(SettingError, match="^(module|precision)="):
        model.certified_radii(torch.rand(COUNT, *SHAPE), labels)


def test_computed_weights_that_stay_are_certified_rightly():
    model = nmode()
    parametrizations.weight_norm(model.head)
    parametrizations.orthogonal(model.layer.linear)
    assert_right(model.eval())


@pytest.mark.parametrize("part", [1, 4], ids=["batch norm", "dropout"])
def test_parts_in_training_are_refused(part):
    model = nmode()
    model.backbone[part].train()
    assert_refused(model, "must be in eval mode")


def test_a_model_in_half_precision_is_refused():
    model = nmode().bfloat16()
    images, labels = torch.rand(COUNT, *SHAPE), torch.zeros(COUNT, dtype=torch.long)
    with pytest.raises(SettingError, match="^precision=torch.bfloat16: must be float32"):
        model.certified_radii(images, labels)


def test_a_table_that_is_not_of_its_flow_is_refused():
    model = nmode()
    rows = model.layer.flow._solved.tables[0]._rows
    rows[torch.device("cpu")] = 1.01 * rows[torch.device("cpu")]
    assert_refused(model, "must have a forward within the bounds certified of it")


# Settings that were changed since


def changes():
    def of(part, **values):
        def change(model):
            vars(part(model)).update(values)

        return change

    def block(model):
        return model.layers[2]

    def function(new):
        def change(model):
            model.activation.function = new

        return change

    yield "temperature", of(lambda m: m, temperature=1e-40), "^temperature=1e-40: must be from"
    yield "large temperature", of(lambda m: m, temperature=1e39), "^temperature=1e\\+39"
    yield "temperatures", of(lambda m: m, temperature=torch.tensor([1.0, 0.1, 10.0])), "^temperature=tensor"
    yield "slope", of(lambda m: m.activation, lipschitz=0.1), "^lipschitz=0.1: must be at least"
    yield "span", of(block, span=-2.0), "^span=-2.0"
    yield "substeps", of(block, substeps=0), "^substeps=0"
    yield "not monotone", function(nn.SiLU()), "^activation='SiLU': must be monotone"
    yield "random", function(nn.RReLU(0.1, 1.0).train()), "always in the same way"
    yield "hidden", function(nn.Sequential(nn.ReLU(), Linear(1, 1))), "must have no parameters"
    yield "channels", function(nn.Softmax2d()), "^activation='Softmax2d'"


@pytest.mark.parametrize(("change", "match"), [c[1:] for c in changes()], ids=[c[0] for c in changes()])
def test_a_nonexpansive_net_that_was_changed_is_refused(change, match):
    model = nonexpansive()
    change(model)
    images, labels = torch.rand(COUNT, *SHAPE), torch.arange(COUNT) % 3
    with pytest.raises(SettingError, match=match):
        model.certified_radii(images, labels)


def test_random_slopes_are_refused_in_training_and_certified_in_evaluation():
    model = nonexpansive(activation=nn.RReLU(0.1, 1.0).eval(), lipschitz=1.0)
    assert_right(model)
    assert_refused(
        model.train(), "^activation='RReLU': must act on every entry by itself, and always in the same"
    )


def test_another_padding_has_another_norm():
    """Circular convolutions are larger than those of the norm that was remembered."""
    model = nonexpansive()
    operator = model.layers[2].operator
    with torch.no_grad():
        operator.weight.fill_(0.1)
    zeros = operator.norm_bound()
    operator.padding = "circular"
    assert operator.norm_bound() > 1.05 * zeros
    assert operator.norm_bound() == pytest.approx(0.1 * 9 * 3, rel=1e-3)


# Arithmetic


@contextmanager
def matmul_precision(name):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("family", FAMILIES)
def test_products_in_less_than_float32_are_refused(family):
    model = FAMILIES[family]()
    with matmul_precision("medium"):
        assert_refused(model, "^device='cpu': must take products in float32")
        with summing_products(torch.device("cpu")):
            assert_right(model)
        assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize("family", FAMILIES)
def test_convolutions_that_may_not_sum_products_are_refused(family, monkeypatch):
    model = FAMILIES[family]()
    monkeypatch.setattr(guards_of_certificates, "convolves_by_sums", lambda device: False)
    assert_refused(model, "^device='cpu': must convolve by sums of products")
    assert_right(nmode(front=nn.Flatten()))


def test_cudnn_and_nnpack_may_transform_convolutions():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert not convolves_by_sums(cuda)
    with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
        assert convolves_by_sums(cuda)
    with summing_products(cuda):
        assert convolves_by_sums(cuda)
    assert not convolves_by_sums(cuda)
    assert not convolves_by_sums(torch.device("mps"))
    assert convolves_by_sums(cpu)
    if torch.backends.nnpack.is_available():
        with torch.backends.mkldnn.flags(enabled=False):
            assert not convolves_by_sums(cpu)
            with torch.backends.nnpack.flags(enabled=False):
                assert convolves_by_sums(cpu)


def test_overflow_within_a_model_is_not_certified():
    model = nmode()
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([1e38, 3.0, math.inf]))
    images = torch.rand(COUNT, *SHAPE)
    assert model.certified_radii(images, torch.full((COUNT,), 2)).tolist() == [0.0] * COUNT
