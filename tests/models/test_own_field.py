"""A classifier of any vector field: its equilibria, its certificate, and what does not fit."""

import copy
from functools import partial

import pytest
import torch
from refusals import refusal
from torch import nn
from trainers import quiet_trainer

from lightning_attractors.callbacks import StabilityCertificate
from lightning_attractors.models import FieldClassifier

SHAPE = (1, 3, 4)


class Wells(nn.Module):
    def __init__(self, nodes=12, scale=1.0):
        super().__init__()
        self.coupling = nn.Linear(nodes, nodes)
        self.scale = scale

    def forward(self, x):
        return self.scale * (x - x**3) + self.coupling(x.tanh())


def classifier(field=None, **settings):
    return FieldClassifier(field or Wells(), **{"num_classes": 3, "image_shape": SHAPE, **settings})


def test_attractors_are_equilibria_and_their_jacobians_are_those_of_autograd():
    model = classifier()
    torch.testing.assert_close(model.vector_field(model.equilibria()), torch.zeros(3, 12), atol=1e-5, rtol=0)
    (found, *_) = StabilityCertificate().certify(model)
    exact = copy.deepcopy(model).double()
    jacobian = torch.func.jacrev(exact.vector_field)(exact.equilibria()[0])
    expected = torch.linalg.eigvals(jacobian).real.max().item()
    assert found.flow.spectrum.abscissa == pytest.approx(expected, abs=1e-5)


def test_the_certificate_finds_what_is_not_stable():
    verdicts = [found.stable for found in StabilityCertificate().certify(classifier(Wells(scale=-1.0)))]
    assert verdicts == [False] * 3


def test_the_class_is_the_attractor_that_the_state_flows_to():
    model = classifier(steps=100).eval()
    nn.init.zeros_(model.right_hand_side.coupling.weight)
    nn.init.zeros_(model.right_hand_side.coupling.bias)
    images = (0.2 * model.equilibria()).view(3, *SHAPE)
    assert model(images).argmax(dim=1).tolist() == [0, 1, 2]
    torch.testing.assert_close(model.final_state(images), model.equilibria(), atol=1e-3, rtol=0)


def test_attractors_may_be_numbers_and_nodes_those_of_an_embedding():
    numbers = torch.eye(3, 5).tolist()
    model = classifier(Wells(5), nodes=5, attractors=numbers)
    assert torch.equal(model.equilibria(), torch.eye(3, 5))
    assert model(torch.rand(2, *SHAPE)).shape == (2, 3)


def test_what_is_integrated_is_the_field_less_what_it_has_at_the_attractors():
    field, own = Wells(), torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    model = classifier(field, attractors=own)
    x = torch.randn(5, 12)
    shares = torch.linalg.lstsq(own.T, x.T).solution.T  # of the attractors in a state
    expected = field(x) - shares @ field(own)
    torch.testing.assert_close(model.vector_field(x), expected, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_made_in_python_asks_for_the_field_in_one_line(tmp_path):
    model = classifier().eval()
    trainer = quiet_trainer(tmp_path, [])
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    for weights_only in (True, False):
        load = partial(
            FieldClassifier.load_from_checkpoint, tmp_path / "model.ckpt", weights_only=weights_only
        )
        assert refusal(load) == (
            "field='Wells': must be the module: a checkpoint has its weights alone, so give it too: "
            "field=Wells(...)"
        )
        images = torch.rand(2, *SHAPE)
        torch.testing.assert_close(load(field=Wells()).eval()(images), model(images))


def test_certificates_of_basins_say_what_they_need():
    images, labels = torch.rand(2, *SHAPE), torch.tensor([0, 1])
    message = refusal(classifier().eval().certified_radii, images, labels)
    assert message == (
        "field='PlantedField': must be a CoupledField that has pointwise(), for certificates of basins"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"field": Wells(7)},
            "field='Wells': must take states of shape (3, 12) to as many finite numbers (mat1",
        ),
        ({"field": nn.Linear(12, 3)}, "field='Linear': must take states of shape (3, 12) to as many finite"),
        ({"attractors": "bloks"}, "attractors='bloks': must be one of ['blocks', 'random'], or numbers"),
        (
            {"attractors": [[1.0] * 12] * 2},
            "attractors='shape (2, 12)': must be 3 lists of 12 finite numbers",
        ),
        ({"attractors": [[1.0], [1.0, 2.0]]}, "attractors='2 lists': must be 3 lists of 12 finite numbers"),
        ({"attractors": [[1.0] * 12] * 3}, "attractors='rank 1': must be 3 that are linearly independent"),
        ({"nodes": 0}, "nodes=0: must be null or at least 1"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    assert refusal(classifier, **settings).startswith(message)
