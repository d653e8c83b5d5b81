"""Modules that compute something else than their class and weight say: none may be certified."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from lightning_attractors.certificates import lipschitz_radii, margin_constants, margins, propagate
from lightning_attractors.dynamics.nmode import FlowMap, NMODELayer
from lightning_attractors.errors import SettingError


class Negated(nn.Linear):
    def forward(self, x):
        return -super().forward(x)


def doubled(module):
    module.register_forward_hook(lambda module, x, y: 2 * y)
    return module


def moved(module):
    module.register_forward_pre_hook(lambda module, x: (x[0] + 1,))
    return module


def replaced(module):
    module.forward = torch.neg
    return module


TRICKS = [doubled, moved, replaced]
LINEAR = {
    "subclass": lambda: Negated(3, 3),
    **{trick.__name__: lambda trick=trick: trick(nn.Linear(3, 3)) for trick in TRICKS},
    "weight_norm": lambda: nn.utils.weight_norm(nn.Linear(3, 3)),
    "spectral_norm": lambda: nn.utils.spectral_norm(nn.Linear(3, 3)),
    "pruned": lambda: prune.random_unstructured(nn.Linear(3, 3), "weight", 0.5),
    "weight that moves": lambda: parametrizations.spectral_norm(nn.Linear(3, 3)),
}
X, LABELS = torch.zeros(2, 3), torch.tensor([0, 1])


def layer(linear=None, flow=None):
    made = NMODELayer(3, 3)
    made.linear = linear or made.linear
    made.flow = flow or made.flow
    return made


def assert_refused(call, module):
    with pytest.raises(SettingError, match=f"^module='{type(module).__name__}': (must|has no interval)"):
        call()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", LINEAR)
def test_an_impostor_of_a_linear_layer_is_refused_wherever_it_is(name):
    linear = LINEAR[name]()
    nested, head = layer(linear), nn.Linear(3, 3)
    for dtype in (torch.float32, torch.float64):
        x = X.to(dtype)
        assert_refused(lambda x=x: propagate(nn.Sequential(linear), x, x), linear)
        assert_refused(lambda x=x: propagate(nested, x, x), linear)
        assert_refused(lambda x=x: margins(layer(), linear, x, x, LABELS), linear)
    for pair in ((nested, head), (layer(), linear)):
        assert_refused(lambda pair=pair: lipschitz_radii(*pair, X, LABELS), linear)
        assert_refused(lambda pair=pair: margin_constants(*pair, gain=1.0), linear)


@pytest.mark.parametrize("trick", TRICKS)
def test_a_changed_flow_or_layer_is_refused(trick):
    flow, whole, head = trick(FlowMap()), trick(layer()), nn.Linear(3, 3)
    for module, changed in ((layer(flow=flow), flow), (whole, whole), (nn.Sequential(whole), whole)):
        assert_refused(lambda module=module: propagate(module, X, X), changed)
    assert_refused(lambda: lipschitz_radii(layer(flow=flow), head, X, LABELS), flow)
    assert_refused(lambda: lipschitz_radii(whole, head, X, LABELS), whole)
    assert_refused(lambda: propagate(trick(nn.Sequential()), X, X), nn.Sequential())


@pytest.mark.parametrize("parametrized", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_computed_weight_is_the_weight(parametrized):
    linear, plain = parametrized(nn.Linear(3, 3)).eval(), nn.Linear(3, 3)
    with torch.no_grad():
        for original in linear.parametrizations.weight.parameters():
            original.mul_(2)
    plain.load_state_dict({"weight": linear.weight, "bias": linear.bias})
    box = X.double() - 1, X.double() + 1
    torch.testing.assert_close(propagate(layer(linear), *box), propagate(layer(plain), *box))
    nmode = layer()
    torch.testing.assert_close(margins(nmode, linear, *box, LABELS), margins(nmode, plain, *box, LABELS))
    torch.testing.assert_close(margin_constants(nmode, linear), margin_constants(nmode, plain))
