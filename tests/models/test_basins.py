"""Certified radii of attractor models: no attack breaks them, and what they are not of is refused."""

import pytest
import torch

from lightning_attractors.dynamics import CoupledField
from lightning_attractors.errors import SettingError
from lightning_attractors.models import CVFR, SANODE, ConvBackbone, NonexpansiveStages
from lightning_attractors.robustness.attacks import PGD

SHAPE = (1, 4, 4)


def small(family, **settings):
    """A model with a coupling small enough for most images to have a radius, in float32."""
    torch.manual_seed(1)
    defaults = {SANODE: {"a": 1.0, "gamma": 0.1}, CVFR: {"c": 0.4, "eigenvalue": 8.0}}[family]
    model = family(3, SHAPE, "projected", dt=0.2, steps=8, **{**defaults, **settings})
    with torch.no_grad():
        model.coupling.weight.mul_(0.1)
    return model.eval().requires_grad_(False)


def images_of(model, count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(2))
    return images, model(images).argmax(dim=1)


@pytest.mark.parametrize("integrator", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("family", [SANODE, CVFR])
def test_no_attack_breaks_a_radius(family, integrator):
    model = small(family, integrator=integrator)
    images, labels = images_of(model)
    radii = model.certified_radii(images, labels)
    assert radii.shape == labels.shape
    assert float(radii.median()) > 0.01
    for share in (0.5, 0.999):
        strength = (share * radii).float()
        attacked = PGD(norm="l2", steps=20, restarts=2)(model, images, labels, strength)
        near = (attacked - images).flatten(1).norm(dim=1) <= radii
        assert bool((model(attacked).argmax(dim=1) == labels)[near].all())


def test_radii_of_another_label_are_zero():
    model = small(SANODE)
    images, labels = images_of(model)
    assert bool((model.certified_radii(images, (labels + 1) % 3) == 0).all())


def test_behind_stages_of_norm_one_radii_are_of_images():
    stages = NonexpansiveStages(SHAPE, widths=[4], depths=[1], strides=[1], outputs=16)
    model = small(SANODE, backbone=stages)
    images, labels = images_of(model)
    radii = model.certified_radii(images, labels)
    assert float(radii.max()) > 0.01
    bare = small(SANODE)
    known = {name: value for name, value in model.state_dict().items() if not name.startswith("backbone")}
    bare.load_state_dict(known)
    features = stages(images).view(-1, *SHAPE)
    assert torch.allclose(radii, bare.certified_radii(features, labels), rtol=0.1, atol=1e-4)
    directions = torch.nn.functional.normalize(torch.randn(len(images), 16), dim=1).view_as(images)
    moved = images + 0.999 * radii.float().view(-1, 1, 1, 1) * directions
    assert bool((model(moved).argmax(dim=1) == labels)[radii > 0].all())


def test_a_backbone_without_a_constant_is_refused():
    model = small(SANODE, backbone=ConvBackbone(1, [4], [3], [1]), nodes=16)
    images, labels = images_of(model)
    with pytest.raises(SettingError, match="backbone='ConvBackbone': has no certified Lipschitz constant"):
        model.certified_radii(images, labels)


def test_noise_in_evaluation_is_refused():
    model = small(CVFR, sigma=0.1, n_realisations=2)
    images, labels = images_of(model)
    with pytest.raises(SettingError, match="eval_noise=True: must be false"):
        model.certified_radii(images, labels)
    silent = small(CVFR, sigma=0.1, eval_noise=False)
    assert float(silent.certified_radii(images, silent(images).argmax(dim=1)).max()) > 0


@pytest.mark.parametrize("whole", [True, False])
def test_lower_precision_is_refused(whole):
    model = small(CVFR)
    images, labels = images_of(model)
    given = "torch.bfloat16" if whole else "'autocast'"
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=not whole),
        pytest.raises(SettingError, match=f"precision={given}: must be float32, outside autocast"),
    ):
        (model.bfloat16() if whole else model).certified_radii(images, labels)


def test_a_forward_of_its_own_is_refused():
    class Mine(SANODE):
        def forward(self, images):
            return super().forward(1 - images)

    model = Mine(3, SHAPE, "projected", steps=4).eval()
    with pytest.raises(SettingError, match="must compute what AttractorClassifier does"):
        model.certified_radii(*images_of(model))


class Plain(CoupledField):
    """A field that does not say how its nodes bend."""

    def __init__(self, coupling):
        self.coupling = coupling

    def reaction(self, x):
        return -x

    def emission(self, x):
        return x.tanh()


class Lying(Plain):
    """A field whose nodes do something else than it says."""

    def pointwise(self):
        return SANODE(3, SHAPE, "projected").field().pointwise()


@pytest.mark.parametrize(
    ("field", "match"),
    [(Plain, "field='Plain': must say how its nodes act"), (Lying, "must step as its field's pointwise")],
)
def test_a_field_of_which_nothing_is_known_is_refused(field, match):
    class Own(SANODE):
        def field(self):
            return field(0.1 * torch.eye(16))

    model = Own(3, SHAPE, "projected", steps=4).eval()
    with pytest.raises(SettingError, match=match):
        model.certified_radii(*images_of(model))


def test_radii_of_basins_lie_within_what_ends_there():
    model = small(SANODE)
    images, labels = images_of(model)
    traps, radii = model.traps(), model.basin_radii(images, labels)
    assert radii.shape == labels.shape
    for part, label, radius in zip(images, labels, radii, strict=True):
        if radius > 0:
            direction = torch.randn(200, 16, generator=torch.Generator().manual_seed(4))
            starts = part.flatten() + radius * direction / direction.norm(dim=1, keepdim=True)
            ends = list(model.states(starts.float().view(-1, *SHAPE), 400))[-1]
            distance = (ends - model.attractors[label]).norm(dim=1)
            assert float(distance.max()) <= float(traps.precision[label]) + 1e-5


def test_traps_of_other_wells_or_steps_are_looked_for_anew():
    model = small(SANODE)
    first = model.traps()
    assert model.traps() is first
    with torch.no_grad():
        model.gamma.mul_(2)
    deeper = model.traps()
    assert not torch.equal(deeper.radius, first.radius)
    model.dt = 0.1
    assert model.traps() is not deeper
    assert model.double().traps() is not deeper
