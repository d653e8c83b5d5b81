"""Certificates in L2 and in L∞, of a linear classifier whose radii are known exactly."""

import csv
import json
import math

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from lightning_attractors.callbacks import BrokenCertificateError, RobustnessCurve
from lightning_attractors.certificates import sums_in_float32
from lightning_attractors.errors import SettingError

COUNT, SIDE = 30, 4
# Half of it black, half of it white: of norm 1, and in the middle of the images moves no pixel out of [0, 1]
DIRECTION = torch.tensor([1.0, -1.0]).repeat(SIDE * SIDE // 2) / SIDE
ALONG = torch.linspace(0.02, 0.75, COUNT).double()
PGD_L2 = {"class_path": "torchattacks.PGDL2", "init_args": {"steps": 10, "alpha": 0.2}}
APGD_L2 = {"class_path": "torchattacks.APGD", "init_args": {"norm": "L2"}}


class Halves(L.LightningModule):
    """Logits ±⟨direction, x⟩: the label is kept as far as |⟨direction, x⟩| in L2, exactly.

    It does not say that it is L2.
    """

    def __init__(self, factor=1 - 1e-6, scale=10.0):
        super().__init__()
        self.factor, self.scale = factor, scale
        self.layer = nn.Linear(1, 1)

    def forward(self, images):
        along = images.flatten(1) @ DIRECTION
        return self.scale * torch.stack([-along, along], dim=1)

    def certified_radii(self, images, labels):
        along = images.flatten(1).double() @ DIRECTION.double()
        return (self.factor * along * (2 * labels - 1)).clamp(min=0)

    def test_step(self, batch, batch_idx):
        """Nothing."""

    def training_step(self, batch, batch_idx):
        return self.layer.weight.sum()

    def validation_step(self, batch, batch_idx):
        """Nothing."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class HalvesL2(Halves):
    certified_norm = "l2"


def pictures():
    """Images with 0.02 to 0.75 of the direction, of both classes, the first two with the wrong label."""
    generator = torch.Generator().manual_seed(0)
    rest = 0.1 * torch.rand(COUNT, SIDE * SIDE, generator=generator)
    rest -= (rest @ DIRECTION)[:, None] * DIRECTION
    signs = 1 - 2 * (torch.arange(COUNT) % 2)
    images = 0.5 + rest + (signs * ALONG.float())[:, None] * DIRECTION
    labels = (signs > 0).long()
    labels[:2] = 1 - labels[:2]
    return images.view(-1, 1, SIDE, SIDE), labels


def loader():
    return DataLoader(TensorDataset(*pictures()), batch_size=8)


def measured(path, module, attacks, **settings):
    callback = RobustnessCurve(attacks, masking=False, batch_size=16, **settings)
    quiet_trainer(path, [callback]).test(module, loader(), verbose=False)
    return callback


def report(path, name):
    return json.loads((path / "robustness" / f"{name}.json").read_text())


def columns(path, name):
    with open(path / "robustness" / f"{name}.csv", newline="") as file:
        table = list(csv.DictReader(file))
    return {key: [float(row[key] or "nan") for row in table] for key in table[0]}


def test_a_sound_l2_certificate_passes_and_stands_beside_attacks_that_keep_to_l2(tmp_path):
    strengths = [0.2, 0.4, 0.6]
    attacks = [
        PGD_L2,
        APGD_L2,
        {"class_path": "torchattacks.FGSM", "name": "within_reach"},
        {"class_path": "torchattacks.FGSM", "name": "out_of_reach", "strengths": [0.001]},
        "pgd_radius",
    ]
    callback = measured(tmp_path, HalvesL2(), attacks, strengths=strengths, confidence=0)
    for name in ("PGDL2", "APGD"):
        assert report(tmp_path, name)["certificate"]["norm"] == "l2"
        found = columns(tmp_path, name)
        held = [(ALONG[2:] >= strength).double().mean().item() for strength in found["strength"]]
        assert found["certified"] == pytest.approx(held)
        # The radii are exact, and these attacks find the way but for one image that is nearly as far
        assert found["relative_accuracy"] == pytest.approx(held, abs=1.1 / (COUNT - 2))
        pairs = zip(found["relative_accuracy"], found["certified"], strict=True)
        assert all(accuracy >= certified for accuracy, certified in pairs)
    for name in ("within_reach", "out_of_reach", "pgd_radius"):
        assert all(map(math.isnan, columns(tmp_path, name)["certified"])), name
    assert callback.certificate == report(tmp_path, "certified")


@pytest.mark.parametrize(
    "attack",
    [
        PGD_L2 | {"strengths": (1.005 * ALONG[10:13]).tolist()},
        {"class_path": "torchattacks.FGSM", "strengths": (1.005 * ALONG[10:13] / SIDE).tolist()},
        "fgsm_radius",
    ],
)
def test_radii_a_hundredth_too_large_are_broken_by_l2_and_by_linf_attacks(attack, tmp_path):
    with pytest.raises(BrokenCertificateError, match=r"within it in L2 are \w+: images \[\d"):
        measured(tmp_path, HalvesL2(factor=1.01), [attack])


def test_without_a_norm_radii_are_in_linf(tmp_path):
    """There the class is lost within a quarter of the L2 distance."""
    with pytest.raises(BrokenCertificateError, match="within it in L∞ are"):
        measured(tmp_path, Halves(), [APGD_L2], strengths=[0.5])
    assert report(tmp_path, "certified")["norm"] == "linf"


def test_the_certificate_alone_has_files_of_its_own(tmp_path):
    measured(tmp_path, HalvesL2(), ["pgd_radius"], confidence=0.99)
    found = columns(tmp_path, "certified")
    images, labels = pictures()
    correct = torch.arange(COUNT) >= 2
    radii = HalvesL2().certified_radii(images, labels)
    counts = correct & (HalvesL2()(images).softmax(dim=1).amax(dim=1) >= 0.99)
    assert 0 < counts.sum() < correct.sum()
    assert found["radius"][0] == 0
    assert found["radius"][-1] == radii.max().item()
    for row in range(0, 101, 10):
        held = correct & (radii >= found["radius"][row])
        assert found["certified_accuracy"][row] == pytest.approx(held.double().mean().item())
        assert found["relative_certified_accuracy"][row] == pytest.approx(held[counts].double().mean().item())
    assert found["certified_accuracy"][0] == pytest.approx((COUNT - 2) / COUNT)
    summary = report(tmp_path, "certified")
    assert (summary["norm"], summary["settings"]["confidence"]) == ("l2", 0.99)
    assert summary["median_radius"] == radii[counts].median().item()
    assert summary["average_radius"] == pytest.approx(radii[correct].sum().item() / COUNT)
    assert summary["images"] == {
        "all": COUNT,
        "correct": COUNT - 2,
        "counted": int(counts.sum()),
        "certified": COUNT - 2,
    }
    assert (tmp_path / "robustness" / "certified.png").read_bytes().startswith(b"\x89PNG")


def test_the_loggers_have_the_certificate(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version=0, default_hp_metric=False)
    callback = RobustnessCurve(["fgsm_radius"], masking=False)
    trainer = L.Trainer(callbacks=[callback], logger=logger, accelerator="cpu", enable_progress_bar=False)
    trainer.test(HalvesL2(), loader(), verbose=False)
    logger.experiment.flush()
    events = EventAccumulator(str(tmp_path / "version_0")).Reload()
    assert "robustness/certified" in events.Tags()["images"]
    for name in ("median_radius", "average_radius"):
        value = events.Scalars(f"robustness/certified/{name}")[0].value
        assert value == pytest.approx(callback.certificate[name], rel=1e-6)


def test_without_a_certificate_there_are_no_such_files(tmp_path):
    module = HalvesL2()
    module.certified_radii = None
    callback = measured(tmp_path, module, ["fgsm_radius"])
    assert callback.certificate is None
    assert not list((tmp_path / "robustness").glob("certified*"))
    assert report(tmp_path, "fgsm_radius")["certificate"] is None


@pytest.mark.parametrize("norm", ["L2", 2])
def test_an_unknown_norm_is_refused_before_training(norm, tmp_path):
    class Untrained(L.Callback):
        def on_train_batch_start(self, *arguments):
            pytest.fail("training has begun")

    module = HalvesL2()
    module.certified_norm = norm
    curve = RobustnessCurve(["fgsm_radius"], masking=False, split="val")
    trainer = quiet_trainer(tmp_path, [curve, Untrained()], max_epochs=1, num_sanity_val_steps=0)
    with pytest.raises(SettingError, match=rf"certified_norm='?{norm}'?: must be linf or l2"):
        trainer.fit(module, loader(), loader())


def test_an_attack_cannot_have_the_name_of_the_certificates_files():
    with pytest.raises(SettingError, match="attacks='certified': must have another name"):
        RobustnessCurve([{"class_path": "pgd_radius", "name": "certified"}])


def test_convolutions_in_tf32_or_bfloat16_have_no_certificate(tmp_path):
    assert sums_in_float32(torch.device("cpu"))
    assert not sums_in_float32(torch.device("cuda"))  # PyTorch's default
    before = torch.backends.mkldnn.conv.fp32_precision
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    try:
        measured(tmp_path, HalvesL2(), ["fgsm_radius"])
    finally:
        torch.backends.mkldnn.conv.fp32_precision = before
    assert "TF32 or bfloat16" in report(tmp_path, "fgsm_radius")["certificate"]["reason"]
    assert not list((tmp_path / "robustness").glob("certified*"))
