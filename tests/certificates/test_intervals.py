import pytest
import torch
from adversary import inner_box, smallest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_attractors.certificates import interval_verified, linf_box, margins, propagate
from lightning_attractors.dynamics.nmode import FlowMap, NMODELayer
from lightning_attractors.errors import SettingError


def batch_norm(channels):
    layer = nn.BatchNorm2d(channels)
    with torch.no_grad():
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.1, 2)
        layer.weight.normal_()  # of both signs
        layer.bias.normal_()
    return layer.eval()


LAYERS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 5)),
    "conv": lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1),
    "grouped conv": lambda: nn.Conv2d(2, 4, 2, groups=2, bias=False, padding_mode="circular", padding=1),
    "batch norm": lambda: batch_norm(2),
    "bare batch norm": lambda: nn.BatchNorm2d(2, affine=False).eval(),
    "max pool": lambda: nn.MaxPool2d(3, 2, padding=1),
    "average pool": lambda: nn.AvgPool2d((2, 3), 1),
    "adaptive pool": lambda: nn.AdaptiveAvgPool2d(1),
    "rectifier": lambda: nn.ReLU(inplace=True),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5).eval(), nn.Identity()),
}
NETWORKS = {
    "flow": lambda: FlowMap(3.0, 1.0),
    "dense": lambda: nn.Sequential(nn.Flatten(), NMODELayer(72, 6, 1.5, 2.0)),
    "max-pooled": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3), batch_norm(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), NMODELayer(12, 4)
    ),
    "average-pooled": lambda: nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(2, 4, 2),
        batch_norm(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        NMODELayer(4, 6),
    ),
}


def boxes(strength):
    images = torch.randn(4, 2, 6, 6)
    return inner_box(images, strength * torch.rand(4).double())


@pytest.mark.parametrize("strength", [1e-4, 0.3])
@pytest.mark.parametrize("name", LAYERS | NETWORKS)
def test_no_input_leaves_the_bounds(name, strength):
    module = (LAYERS | NETWORKS)[name]()
    low, high = boxes(strength)
    lower, upper = (end.detach().flatten(1) for end in propagate(module, low.double(), high.double()))
    assert bool((lower < upper).any())
    for k in torch.randperm(lower.shape[1])[:2].tolist():

        def output(x, k=k):
            return module(x.clone()).flatten(1)[:, k]

        # no room: float32 itself must not leave them
        assert bool((smallest(output, low, high, 4, 6).double() >= lower[:, k]).all())
        assert bool((-smallest(lambda x: -output(x), low, high, 4, 6).double() <= upper[:, k]).all())


@pytest.mark.parametrize("name", LAYERS)
def test_bounds_of_one_layer_are_attained(name):
    module = LAYERS[name]()
    low, high = boxes(0.5)
    low, high = low[:1], high[:1]
    lower, upper = (end.detach().flatten(1) for end in propagate(module, low.double(), high.double()))
    slopes = torch.func.jacrev(lambda x: module(x.clone()).flatten())((low + high) / 2).flatten(1)
    if isinstance(module, nn.MaxPool2d | nn.ReLU):
        slopes = torch.ones_like(slopes)
    slopes = slopes.detach()
    for k, slope in enumerate(slopes.view(-1, *low.shape)):
        best, worst = torch.where(slope > 0, high, low), torch.where(slope > 0, low, high)
        assert module(best.clone()).flatten()[k].item() == pytest.approx(upper[0, k].item(), abs=1e-3)
        assert module(worst.clone()).flatten()[k].item() == pytest.approx(lower[0, k].item(), abs=1e-3)


def test_the_flow_layer_is_exact_for_each_neuron():
    layer = NMODELayer(1, 7)
    nn.init.normal_(layer.linear.weight, std=3)
    low, high = torch.tensor([[-0.2]]), torch.tensor([[0.6]])
    lower, upper = propagate(layer, low.double(), high.double())
    found = layer(torch.linspace(-0.2, 0.6, 4001)[:, None])
    torch.testing.assert_close(found.amin(0), lower[0].float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.amax(0), upper[0].float(), rtol=0, atol=1e-5)


def test_float32_gives_the_same_bounds_up_to_its_rounding():
    module = NETWORKS["max-pooled"]()
    low, high = boxes(0.3)
    quick, sure = propagate(module, low, high), propagate(module, low.double(), high.double())
    assert quick[0].dtype == torch.float32
    for one, other in zip(quick, sure, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(propagate(module, low, high), quick)


@given(size=st.integers(1, 3000), exponent=st.integers(-6, 6), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_float32_rounding_of_sums_is_covered_and_not_by_much_more(size, exponent, seed):
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(size, 8)
    with torch.no_grad():
        layer.weight.normal_(0, 10.0**exponent, generator=generator)
    x = torch.rand(4, size, generator=generator)
    lower, upper = propagate(layer, x.double(), x.double())
    assert bool(((lower <= layer(x)) & (layer(x) <= upper)).all())
    room = (size + 4) * 2.0**-23 * (layer.weight.abs().sum() + layer.bias.abs().max())
    assert bool((upper - lower <= 1.01 * room).all())


@pytest.mark.parametrize(
    ("decay", "time", "span"),
    [(3.0, 0.05, 50.0), (3.0, 1.0, 1.0), (3.0, 1.0, 50.0), (3.0, 1.0, 1000.0), (1.5, 5.0, 50.0)],
)
def test_float32_rounding_of_the_flow_is_covered(decay, time, span):
    flow = FlowMap(decay, time)
    gamma = span * (2 * torch.rand(2000) - 1)
    lower, upper = propagate(flow, gamma.double(), gamma.double())
    assert bool(((lower <= flow(gamma)) & (flow(gamma) <= upper)).all())
    assert float((upper - lower).max()) < 2.1e-6 + flow.gain * span * 2.0**-21


@pytest.mark.parametrize("name", ["average pool", "adaptive pool", "bare batch norm"])
def test_underflow_is_covered(name):
    module, x = LAYERS[name](), torch.zeros(1, 2, 6, 6)
    x[:, :, 0, 0] = 2.0**-149
    lower, upper = propagate(module, x.double(), x.double())
    assert bool(((lower <= module(x)) & (module(x) <= upper)).all())


def test_margins_fold_the_head_into_differences():
    layer, head = NMODELayer(3, 5), nn.Linear(5, 3)
    with torch.no_grad():
        head.weight[1] = head.weight[0]
    x, labels = torch.randn(6, 3).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    found = margins(layer, head, *linf_box(x, 0.4), labels)
    lower, upper = propagate(nn.Sequential(layer, head), *linf_box(x, 0.4))
    apart = lower.gather(1, labels[:, None]) - upper
    assert bool((found > apart)[found != 0].all())
    assert bool((found.gather(1, labels[:, None]) == 0).all())
    # rows that are equal differ by their biases, whatever the input
    gap = float((head.bias[0] - head.bias[1]).detach())
    assert found[0, 1].item() == pytest.approx(gap, abs=1e-5)
    assert found[1, 0].item() == pytest.approx(-gap, abs=1e-5)


def test_margins_are_beaten_by_no_search_and_nearly_reached():
    layers, head, labels = NETWORKS["dense"](), nn.Linear(6, 3), torch.tensor([0, 1, 2, 0])
    low, high = boxes(0.02)
    found = margins(layers, head, low.double(), high.double(), labels).detach()
    for j in range(3):

        def lead(x, j=j):
            logits = head(layers(x))
            return logits.gather(1, labels[:, None])[:, 0] - logits[:, j]

        reached = smallest(lead, low, high, 4, 8).double()
        assert bool((reached >= found[:, j]).all())
        middle = lead((low + high) / 2).detach()
        assert bool((middle - reached >= 0.2 * (middle - found[:, j])).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_margins_have_the_right_derivatives(dtype):
    layers, head = NETWORKS["max-pooled"](), nn.Linear(4, 3)
    weight, labels = layers[-1].linear.weight, torch.tensor([0, 1, 2, 0])
    low, high = (end.to(dtype) for end in boxes(0.1))

    def loss():
        return margins(layers, head, low, high, labels).square().sum()

    low.requires_grad_()
    slope, slope_low = torch.autograd.grad(loss(), [weight, low])
    for value, gradient in ((weight, slope), (low, slope_low)):
        direction = torch.randn_like(value)
        h = 3e-3
        with torch.no_grad():
            value += h * direction
            ahead = loss()
            value -= 2 * h * direction
            behind = loss()
            value += h * direction
        expected = float((gradient * direction).sum())
        assert float(ahead - behind) / (2 * h) == pytest.approx(expected, rel=0.05, abs=2e-2)


def test_training_against_the_margins_makes_them_hold():
    images = torch.rand(60, 4)
    labels = (images[:, 0] > images[:, 1]).long()
    layer, head = NMODELayer(4, 12), nn.Linear(12, 2)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], 0.05)
    before = interval_verified(layer, head, images, labels, 0.05).double().mean()
    for _ in range(40):
        optimizer.zero_grad()
        logits = -margins(layer, head, *linf_box(images, 0.05, (0, 1)), labels)
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
    assert interval_verified(layer, head, images, labels, 0.05).double().mean() > before + 0.2


class Negated(nn.Linear):
    def forward(self, x):
        return -super().forward(x)


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.Tanh(), "Tanh"),
        (Negated(3, 3), "Negated"),
        (nn.BatchNorm2d(3), "BatchNorm2d"),
        (nn.BatchNorm2d(3, track_running_stats=False).eval(), "BatchNorm2d"),
        (nn.Dropout(0.5), "Dropout"),
    ],
)
def test_modules_without_bounds_are_refused_by_name(module, named):
    x = torch.ones(1, 3, 1, 1) if isinstance(module, nn.BatchNorm2d) else torch.ones(1, 3)
    with pytest.raises(SettingError, match=f"module='{named}'") as refusal:
        propagate(nn.Sequential(nn.Identity(), module), x, x)
    if isinstance(module, nn.BatchNorm2d | nn.Dropout):
        assert "eval mode, with running statistics if it has any, even in training" in str(refusal.value)


def test_a_layer_that_needs_a_solver_is_refused():
    layer = NMODELayer(3, 2)
    layer.flow = nn.Softplus()
    with pytest.raises(SettingError, match="Softplus"):
        propagate(layer, torch.zeros(1, 3), torch.ones(1, 3))


def test_half_precision_and_images_out_of_bounds_are_refused():
    with pytest.raises(SettingError, match="float16"):
        propagate(nn.ReLU(), torch.zeros(1).half(), torch.ones(1).half())
    with pytest.raises(SettingError, match="must hold every pixel"):
        linf_box(torch.tensor([[1.5]]), 0.1, (0, 1))


def test_boxes_are_cut_off_at_the_bounds():
    lower, upper = linf_box(torch.tensor([[0.05], [0.5]]), torch.tensor([0.1, 0.7]), (0, 1))
    torch.testing.assert_close(lower, torch.tensor([[0.0], [0.0]]))
    torch.testing.assert_close(upper, torch.tensor([[0.15], [1.0]]))
