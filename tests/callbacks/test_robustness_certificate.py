"""What is certified is what is attacked: normalised images, logits of a function, boxes."""

import json
import math

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from lightning_attractors.callbacks import RobustnessCurve
from lightning_attractors.errors import SettingError
from lightning_attractors.models import NMODE, NonexpansiveNet

SHAPE, MEAN, STD = (2, 3, 3), [0.4, 0.2], [0.5, 0.25]
EVERYWHERE = (-math.inf, math.inf)


class Difference(L.LightningModule):
    """Logits ±(first channel's mean − the second's), of inputs that are normalised or not."""

    certified_norm = "l2"

    def __init__(self, box=None, norm="l2", factor=0.9999):
        super().__init__()
        self.factor, self.certified_norm = factor, norm
        if box is not None:
            self.certified_box = box

    def difference(self, inputs):
        means = inputs.mean(dim=(2, 3))
        return means[:, 0] - means[:, 1]

    def forward(self, inputs):
        found = 50 * self.difference(inputs)
        return torch.stack([found, -found], dim=1)

    def certified_radii(self, inputs, labels):
        """The difference moves by at most ‖step‖₂ √(1/2), and by 2 ‖step‖∞."""
        sure = self.difference(inputs.double()) * (1 - 2 * labels) * self.factor
        return sure.clamp(min=0) * (math.sqrt(2) if self.certified_norm == "l2" else 0.5)

    def test_step(self, batch, batch_idx):
        """Nothing."""


def inputs():
    generator = torch.Generator().manual_seed(0)
    images = 0.2 + 0.6 * torch.rand(12, *SHAPE, generator=generator)
    return (images - torch.tensor(MEAN).view(2, 1, 1)) / torch.tensor(STD).view(2, 1, 1)


def measured(path, module, images=None, attacks=("pgd_radius",), **settings):
    images = inputs() if images is None else images
    with torch.no_grad():
        labels = module(images).argmax(dim=1)
    curve = RobustnessCurve(list(attacks), masking=False, confidence=0, **settings)
    data = DataLoader(TensorDataset(images, labels), batch_size=5)
    quiet_trainer(path, [curve]).test(module, data, verbose=False)
    summary = json.loads((path / "robustness" / "pgd_radius.json").read_text())["certificate"]
    return curve.certificate, summary, labels


def test_normalised_images_have_radii_that_are_scaled_by_the_smallest_std(tmp_path):
    """Attacks in pixels that go as far as the radii find nothing, or there would be an error."""
    module = Difference(EVERYWHERE)
    pgd = {
        "class_path": "torchattacks.PGDL2",
        "init_args": {"steps": 10, "alpha": 0.05},
        "strengths": [0.1, 0.3],
    }
    certificate, summary, labels = measured(tmp_path, module, attacks=[pgd, "pgd_radius"], mean=MEAN, std=STD)
    expected = 0.25 * module.certified_radii(inputs(), labels)
    assert certificate["average_radius"] == pytest.approx(expected.mean().item(), rel=1e-3)
    assert certificate["average_radius"] < expected.mean().item()
    assert certificate["norm"] == summary["norm"] == "l2"


def test_a_number_normalises_every_channel(tmp_path):
    module = Difference(EVERYWHERE)
    images = torch.linspace(-2, 2, 24 * math.prod(SHAPE[1:])).view(12, *SHAPE)
    one, _, _ = measured(tmp_path, module, images, mean=0.5, std=0.25)
    each, _, _ = measured(tmp_path, module, images, mean=[0.5, 0.5], std=[0.25, 0.25])
    assert one["average_radius"] == each["average_radius"] > 0


def test_in_linf_too(tmp_path):
    module = Difference(EVERYWHERE, "linf")
    certificate, _, labels = measured(tmp_path, module, mean=MEAN, std=STD)
    expected = 0.25 * module.certified_radii(inputs(), labels)
    assert certificate["average_radius"] == pytest.approx(expected.mean().item(), rel=1e-3)


def test_a_box_that_holds_all_normalised_images_is_enough(tmp_path):
    certificate, summary, _ = measured(tmp_path, Difference((-1.0, 4.0)), mean=MEAN, std=STD)
    assert certificate["box"] == summary["box"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Difference(), "certified_radii is of images in [0, 1], not of (pixels − mean) / std"),
        (
            Difference((0.0, 1.0)),
            "certified_radii is of inputs in [0.0, 1.0], those of mean and std in [-0.8, 3.2]",
        ),
        (NMODE(2, SHAPE, width=4).eval(), "certified_radii is of inputs in [0.0, 1.0]"),
    ],
)
def test_radii_that_do_not_speak_of_normalised_images_are_not_asked_for(module, reason, tmp_path):
    certificate, summary, _ = measured(tmp_path, module, mean=MEAN, std=STD)
    assert certificate is None
    assert summary["reason"].startswith(reason)


def test_nonexpansive_networks_are_certified_for_normalised_images(tmp_path):
    model = NonexpansiveNet(2, SHAPE, widths=[3], depths=[1], strides=[1]).eval()
    certificate, _, labels = measured(tmp_path, model, mean=MEAN, std=STD)
    expected = 0.25 * model.certified_radii(inputs(), labels)
    assert expected.mean() > 0
    assert certificate["average_radius"] == pytest.approx(expected.mean().item(), rel=1e-2)


def test_radii_of_forward_are_none_of_another_function(tmp_path):
    def negative(module, images):
        return -module(images)

    images = torch.rand(12, *SHAPE)
    certificate, summary, _ = measured(tmp_path, Difference(), images, logits_fn=negative)
    assert certificate is None
    assert summary["reason"] == "certified_radii is of forward, and attacked is the logits_fn negative"


@pytest.mark.parametrize(("box", "said"), [(None, [0.0, 1.0]), ((0.0, 0.9), [0.0, 0.9])])
def test_the_box_is_written(box, said, tmp_path):
    certificate, summary, _ = measured(tmp_path, Difference(box), 0.2 + 0.6 * torch.rand(12, *SHAPE))
    assert certificate["box"] == summary["box"] == said


@pytest.mark.parametrize("box", [(1.0, 0.0), 1.0, (0.0, 0.5, 1.0), ("0", "1"), (0.0, math.nan)])
def test_a_box_that_is_none_is_refused(box, tmp_path):
    with pytest.raises(SettingError, match=r"^certified_box=.*: must be \(low, high\)"):
        measured(tmp_path, Difference(box), torch.rand(12, *SHAPE))
