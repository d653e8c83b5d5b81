"""A hand-written step gives what autograd gives, and a field need not have one."""

import pytest
import torch

from lightning_attractors.dynamics.planted import (
    CoupledField,
    DoubleWellField,
    FiringRateField,
    FusedStep,
    HillGain,
    fused_step_of,
    has_fused_step,
    integrate_fused,
)
from lightning_attractors.errors import SettingError
from lightning_attractors.models import CVFR, SANODE


class PlainDoubleWell(DoubleWellField):
    """The same equation, of a type that has no step."""


class PlainFiringRate(FiringRateField):
    pass


class PlainSANODE(SANODE):
    def field(self):
        field = super().field()
        return PlainDoubleWell(field.coupling, field.gamma, field.a)


class PlainCVFR(CVFR):
    def field(self):
        field = super().field()
        return PlainFiringRate(field.coupling, field.gain)


MODELS = {
    "double well": (SANODE, PlainSANODE, {}),
    "firing rate": (CVFR, PlainCVFR, {}),
    "noisy": (CVFR, PlainCVFR, {"sigma": 0.5}),
}


@pytest.fixture(params=[None, 0.4], ids=["free", "clipped"])
def bound(request):
    return request.param


@pytest.fixture(params=MODELS)
def twins(request, bound):
    """A model of a field with a fused step, and one of the same field without, with equal weights."""
    fused, plain, settings = MODELS[request.param]
    settings = {"num_classes": 3, "image_shape": (1, 4, 5), "steps": 12, **settings}
    made = fused(**settings), plain(**settings)
    made[1].load_state_dict(made[0].state_dict())
    for model in made:
        model.eval().bound = bound
    assert has_fused_step(made[0].field())
    assert not has_fused_step(made[1].field())
    return made


def gradients(model, images):
    """Final states, and the gradients of a number in the images and all parameters."""
    images = images.clone().requires_grad_()
    final = model.final_state(images)
    weights = torch.linspace(-1, 1, final.numel(), dtype=final.dtype).view_as(final)
    return final, torch.autograd.grad((weights * final).sum(), [images, *model.parameters()])


def test_a_field_with_and_without_its_step_has_equal_states_and_gradients(twins, bound):
    images = torch.rand(4, 1, 4, 5, dtype=torch.float64)
    (final, grads), (expected, expected_grads) = (gradients(model.double(), images) for model in twins)
    if bound is not None:
        assert (expected.abs() == bound).any()
        assert (expected.abs() < bound).any()
    torch.testing.assert_close(final, expected, rtol=1e-10, atol=1e-12)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-11)


def test_both_keep_a_float32_state_and_take_bfloat16_products_under_autocast(twins):
    images = torch.rand(4, 1, 4, 5)
    exact, _ = gradients(twins[0], images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (final, grads), (expected, expected_grads) = (gradients(model, images) for model in twins)
    for states in (final, expected):
        assert states.dtype == torch.float32
        assert 0 < (states - exact).abs().max() < 0.02
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad.dtype == expected_grad.dtype == torch.float32
        assert (grad - expected_grad).norm() < 0.05 * expected_grad.norm()


def test_a_type_of_fields_from_elsewhere_may_bring_its_step():
    class Leaking(CoupledField):
        def __init__(self, coupling):
            self.coupling = coupling

        def reaction(self, x):
            return -2 * x

        def emission(self, x):
            return x

    field, x = Leaking(torch.randn(5, 5)), torch.randn(3, 5)
    with pytest.raises(SettingError, match="field='Leaking': must be of a type that has a fused step"):
        integrate_fused(field, x, 0.1, 2)

    @fused_step_of(Leaking)
    class LeakingStep(FusedStep):
        def __init__(self, field, dt):
            self.leak = 1 - 2 * dt

        def emit(self, x, out):
            out.copy_(x)

        def advance(self, x, coupled, out):
            torch.add(coupled, x, alpha=self.leak, out=out)

        def pull_back(self, x, adjoint, coupled, gradients):
            return coupled + self.leak * adjoint

    assert has_fused_step(field)
    torch.testing.assert_close(integrate_fused(field, x, 0.1, 1), x + 0.1 * field(x))
    with pytest.raises(SettingError, match="field='Leaking': must not have a fused step yet"):
        fused_step_of(Leaking)


def test_what_is_no_field_has_no_step():
    assert not has_fused_step(torch.neg)
    assert has_fused_step(FiringRateField(torch.eye(2), HillGain()))
