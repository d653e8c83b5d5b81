"""Models of which a layer, or a weight, is not what it looks like: refused, or certified rightly."""

import pytest
import torch
from impostors import SHAPE, assert_refused, assert_right, certified, nmode
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize


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


class Hidden(torch.Tensor):
    """No parameter, but what the layer finds as its weight."""

    __torch_function__ = Other.__torch_function__


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


def shadowed():
    linear = nn.Linear(10, 3)
    vars(linear)["weight"] = linear.weight.detach().as_subclass(Hidden)
    return linear


def derived():
    """The class that torch has derived has another property than torch has given it."""
    linear = with_parametrization(nn.Identity)
    sign = property(lambda self: self.parametrizations.weight() * (1 if torch.is_grad_enabled() else -1))
    type(linear).weight = sign
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
        *(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(10, 3)), shadowed, derived),
    ],
    ids=[
        *("subclass", "swapped", "disguised", "computed", "tensor", "dict", "half", "noisy", "grad", "train"),
        *("shadowed", "derived"),
    ],
)
def test_a_head_that_is_not_what_it_looks_like_is_refused(linear):
    model = nmode()
    model.head = linear()
    assert_refused(model, "^(module|precision)=")


def test_computed_weights_that_stay_are_certified_rightly():
    model = nmode()
    parametrizations.weight_norm(model.head)
    parametrizations.orthogonal(model.layer.linear)
    assert_right(model.eval())


def test_honest_models_of_unusual_make_are_certified_rightly():
    class Front(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten())

    tied = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
    assert_right(nmode(front=Front()))
    assert_right(nmode(front=nn.Sequential(tied, nn.ReLU(), tied, nn.Flatten())))
    model = nmode(front=nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True)))
    model.head.register_full_backward_hook(lambda *arguments: None)
    assert bool((certified(model)[0] > 0).any())


def test_a_compiled_layer_is_named_as_such():
    front = torch.compile(nn.Sequential(nn.Flatten()), backend="eager")
    assert_refused(nmode(front=front), "^module='OptimizedModule': must not be compiled")


@pytest.mark.parametrize("part", [1, 4], ids=["batch norm", "dropout"])
def test_parts_in_training_are_refused(part):
    model = nmode()
    model.backbone[part].train()
    assert_refused(model, "must be in eval mode")


def test_a_model_in_half_precision_is_refused():
    assert_refused(nmode().bfloat16(), "^precision=torch.bfloat16: must be float32")


def test_a_table_that_is_not_of_its_flow_is_refused():
    model = nmode()
    rows = model.layer.flow._solved.tables[0]._rows
    rows[torch.device("cpu")] = 1.01 * rows[torch.device("cpu")]
    assert_refused(model, "must have a forward within the bounds that are certified of it")
